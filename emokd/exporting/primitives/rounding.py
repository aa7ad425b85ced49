"""Rounding to integers, as networks that learn to compute in them are traced."""

from collections.abc import Mapping

from jax.extend import core

from emokd.exporting.walk import Function, Value, Walk


def _rounded(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, scale, zero = inputs
    if scale.array is None or zero.array is None:
        raise walk.unknown(equation, "rounds by a scale that is not constant")
    output = equation.outvars[0].aval
    attributes = {"scale": float(scale.array), "zero": int(zero.array)}
    return walk.emit("Rounded", [value], output.shape, output.dtype, value.held, **attributes)


FUNCTIONS: Mapping[str, Function] = {"uint8_and_back": _rounded}
"""Handlers by the name of a jitted function of `models.rounding`."""
