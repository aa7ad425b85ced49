"""Elementwise primitives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend import core

from emokd.exporting.walk import Handler, Value, Walk, constant

# ONNX's names; its comparisons return booleans, as JAX's do.
PLAIN = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "erf": "Erf", "abs": "Abs",
    "floor": "Floor", "sign": "Sign", "sin": "Sin", "cos": "Cos", "logistic": "Sigmoid",
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
    "and": "And", "or": "Or", "not": "Not",
}  # fmt: skip


def joint(held: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The shape that arrays of these shapes broadcast to."""
    rank = max(map(len, held))
    padded = [(1,) * (rank - len(shape)) + shape for shape in held]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def apply(walk: Walk, op: str, inputs: list[Value], output: Any) -> Value:
    """Adds an elementwise operator on the inputs before their deferred broadcasts, so that its output stays small."""
    return walk.emit(op, inputs, output.shape, output.dtype, joint([value.held for value in inputs]))


def _plain(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    name, output = equation.primitive.name, equation.outvars[0].aval
    if name == "max":
        for value, other in (inputs, inputs[::-1]):
            if value.array is None:
                continue
            if value.array.size == 1 and value.array.item() == -np.inf:
                return _same(walk, equation, [other])
            if not value.array.any() and np.issubdtype(output.dtype, np.floating):
                return apply(walk, "Relu", [other], output)
    return apply(walk, PLAIN[name], inputs, output)


def _same(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    return inputs[0]


def _not_equal(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    output = equation.outvars[0].aval
    if inputs[0] is inputs[1] and np.issubdtype(inputs[0].dtype, np.floating):  # JAX's isnan is x != x
        return apply(walk, "IsNaN", inputs[:1], output)
    return apply(walk, "Not", [apply(walk, "Equal", inputs, output)], output)


def _cast(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    (value,), dtype = inputs, np.dtype(equation.params["new_dtype"])
    if value.dtype == dtype:
        return value
    return walk.emit("Cast", [value], value.shape, dtype, value.held, to=dtype)


def _rsqrt(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    output = equation.outvars[0].aval
    return apply(walk, "Reciprocal", [apply(walk, "Sqrt", inputs, output)], output)


def _power(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    output, exponent = equation.outvars[0].aval, equation.params.get("y", 2)
    if exponent == 2:
        return apply(walk, "Mul", [inputs[0], inputs[0]], output)
    return apply(walk, "Pow", [inputs[0], constant(np.asarray(exponent, output.dtype))], output)


def _erfc(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    output = equation.outvars[0].aval
    return apply(walk, "Sub", [constant(np.ones((), output.dtype)), apply(walk, "Erf", inputs, output)], output)


def _select(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    condition, otherwise, chosen = inputs
    if condition.dtype != np.bool_:
        raise walk.unknown(equation, "chooses by numbers")
    return apply(walk, "Where", [condition, chosen, otherwise], equation.outvars[0].aval)


def _clamp(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    low, value, high = inputs
    output = equation.outvars[0].aval
    if low.array is not None and high.array is not None and low.array.size == high.array.size == 1:
        low, high = constant(low.array.reshape(())), constant(high.array.reshape(()))
        return walk.emit("Clip", [value, low, high], output.shape, output.dtype, value.held)
    return apply(walk, "Min", [apply(walk, "Max", [value, low], output), high], output)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(PLAIN, _plain),
    **dict.fromkeys(("stop_gradient", "copy", "copy_p", "optimization_barrier", "reduce_precision"), _same),
    "clamp": _clamp,
    "convert_element_type": _cast,
    "erfc": _erfc,
    "integer_pow": _power,
    "ne": _not_equal,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": _power,
}
