"""Multiply-accumulates of a function, counted in its jaxpr."""

import math
from collections.abc import Callable

import jax
from jax.extend import core

from emokd.models.convolution import depthwise_input_gradient, depthwise_kernel_gradient, depthwise_output


def count_macs(function: Callable, *args) -> int:
    """Counts the multiply-accumulates of all convolutions and matrix products in `function(*args)`.

    The depthwise convolutions that are written as shifted products on CPU count like any other. Elementwise
    work, normalisation and pooling count nothing, as is usual. A loop counts as often as it runs (`scan`), a
    `while` once, a `cond` as its dearest branch. Products with the zeros that a transposed convolution puts
    between its inputs are not counted.

    Args:
      function: any function of JAX; it is traced, not run.
      *args: arrays or `jax.ShapeDtypeStruct`, in trees.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: core.JaxprEqn) -> int:
    name = equation.primitive.name
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name in ("pjit", "jit") and equation.params["name"] in _DEPTHWISE:
        return _DEPTHWISE[equation.params["name"]](equation)
    inner = [_count(sub) for sub in core.jaxprs_in_params(equation.params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * equation.params.get("length", 1) if name == "scan" else sum(inner)


def _convolution(equation: core.JaxprEqn) -> int:
    """Outputs x window x channels of a group."""
    kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
    _, channels, *window = (kernel[axis] for axis in numbers.rhs_spec)
    zeros = math.prod(equation.params["lhs_dilation"])
    return equation.outvars[0].aval.size * channels * math.prod(window) // zeros


def _window(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1]


_DEPTHWISE = {
    depthwise_output.__name__: lambda e: e.outvars[0].aval.size * _window(e.invars[1].aval.shape),
    depthwise_input_gradient.__name__: lambda e: e.invars[0].aval.size * _window(e.invars[1].aval.shape),
    depthwise_kernel_gradient.__name__: lambda e: e.invars[1].aval.size * _window(e.outvars[0].aval.shape),
}
