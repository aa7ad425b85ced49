"""Multiply-accumulates of a function, counted in its jaxpr."""

import collections
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core

from emokd.parts import part_of

Shape = tuple[int, ...]


def count_macs(function: Callable, *args) -> int:
    """Counts the multiply-accumulates of all convolutions and matrix products in `function(*args)`.

    Depthwise convolutions that `convolution` writes as shifted products on CPU count like any other. Elementwise
    operations, normalisation and pooling are not counted, as is usual. A `scan` counts once per iteration, a `while`
    loop once, a `cond` as its most expensive branch. Products with the zeros that a transposed convolution inserts
    between its inputs are not counted.

    Args:
      function: any JAX function; it is traced, not run.
      *args: its arguments: trees of arrays or `jax.ShapeDtypeStruct`.
    """
    return count_macs_of(jax.make_jaxpr(function)(*args).jaxpr)


def count_macs_of(jaxpr: core.Jaxpr) -> int:
    """`count_macs` of a traced function."""
    return count_macs_by_part(jaxpr).total()


def count_macs_by_part(jaxpr: core.Jaxpr, around: str = "") -> collections.Counter[str]:
    """`count_macs` of each part of a traced step (`emokd.parts`), "" for operations of none.

    Args:
      jaxpr: the step.
      around: the part that operations belong to unless they lie in one of their own.
    """
    found: collections.Counter[str] = collections.Counter()
    for equation in jaxpr.eqns:
        # The outermost label wins.
        found.update(_count_equation(equation, around or part_of(str(equation.source_info.name_stack)) or ""))
    return found


def _count_equation(equation: core.JaxprEqn, part: str) -> collections.Counter[str]:
    name = equation.primitive.name
    if name in ("conv_general_dilated", "dot_general") or equation.params.get("name") in _DEPTHWISE:
        inputs, (output, *_) = (
            [getattr(variable.aval, "shape", ()) for variable in variables]
            for variables in (equation.invars, equation.outvars)
        )
        if name == "conv_general_dilated":
            return collections.Counter({part: _convolution(inputs[1], output, equation.params)})
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            return collections.Counter({part: math.prod(output) * math.prod(inputs[0][axis] for axis in contracted)})
        return collections.Counter({part: _DEPTHWISE[equation.params["name"]](*inputs, output)})
    inner = [count_macs_by_part(sub, part) for sub in core.jaxprs_in_params(equation.params)]
    if name == "cond":
        return max(inner, key=collections.Counter.total)
    found: collections.Counter[str] = collections.Counter()
    for each in inner:
        found.update(each)
    times = equation.params.get("length", 1) if name == "scan" else 1
    return collections.Counter({label: macs * times for label, macs in found.items()})


def _convolution(kernel: Shape, output: Shape, params: Mapping[str, Any]) -> int:
    """Outputs x window size x input channels of a group."""
    _, channels, *window = (kernel[axis] for axis in params["dimension_numbers"].rhs_spec)
    return math.prod(output) * channels * math.prod(window) // math.prod(params["lhs_dilation"])


# MACs of the jitted functions of `convolution`, by name, from the shapes of their arguments and result.
_DEPTHWISE: Mapping[str, Callable[..., int]] = {
    "depthwise_output": lambda inputs, kernel, output: math.prod(output) * math.prod(kernel[:2]),
    "depthwise_input_gradient": lambda cotangent, kernel, _: math.prod(cotangent) * math.prod(kernel[:2]),
    "depthwise_kernel_gradient": lambda inputs, cotangent, kernel: math.prod(cotangent) * math.prod(kernel[:2]),
}
