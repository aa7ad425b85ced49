"""A network whose products compute in 8-bit integers, simulated in float32, so that it can learn to.

Weights are int8, symmetric, with a scale for each output channel, after BatchNorm's running statistics have been folded
into them. What products, sums and pools read is uint8 with one scale and zero point for each place (Jacob et al. 2018,
arXiv:1712.05877, sections 2 and 3). The gradient passes rounding unchanged (Bengio et al. 2013, arXiv:1308.3432), but
not values outside a place's range.

A place is where a layer reads something; places are numbered in the order in which the network is traced. Their ranges
are a statistic of the network, see `models.network.Network`. An export writes what is simulated here:
`exporting.quantisation`.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emokd.models.convolution import traced_plainly

NETWORKS = ("basic_cnn", "mobilenet_v2", "resnet18", "resnet50")
"""The backbones all of whose products, sums and pools pass through this module."""
RANGES = "ranges"
"""The statistic of a network that holds the ranges: low and high of each place, float32 [P, 2]; zeros: not taken."""
ACTIVATION_LEVELS = 255.0
"""The largest integer of an activation; the smallest is 0."""
WEIGHT_LEVELS = 127.0
"""The largest integer of a weight; the smallest is its negative."""
BIAS_LEVELS = 2.0**30
"""Largest integer of a bias, which has the scale of the products and has to fit into int32."""
SMALLEST_SCALE = 2.0**-106
"""Of activations that are all 0."""


@dataclasses.dataclass
class _Trace:
    """One pass over a network: takes ranges, or rounds by them.

    Attributes:
      ranges: low and high of each place, or None where they are being taken.
      rows: the examples that count while ranges are taken.
      seen: low and high of the places that have been passed, [2] each.
    """

    ranges: Float[Array, "P 2"] | None
    rows: Bool[Array, " B"] | None = None
    seen: list[Array] = dataclasses.field(default_factory=list)


_TRACE: contextvars.ContextVar[_Trace | None] = contextvars.ContextVar("rounding", default=None)


@contextlib.contextmanager
def rounding(ranges: Float[Array, "P 2"] | None) -> Iterator[None]:
    """Within this context a network computes in simulated integers with these ranges; None changes nothing."""
    token = _TRACE.set(_TRACE.get() if ranges is None else _Trace(ranges))
    try:
        yield
    finally:
        _TRACE.reset(token)


@contextlib.contextmanager
def taking_ranges(rows: Bool[Array, " B"] | None) -> Iterator[list[Array]]:
    """Within this context a network in floating point appends low and high of each place to the list that is given.

    Args:
      rows: the examples that count, as padding does not; None: all.
    """
    trace = _Trace(None, rows)
    token = _TRACE.set(trace)
    try:
        yield trace.seen
    finally:
        _TRACE.reset(token)


def computes_in_integers() -> bool:
    """Whether what is traced here is to compute in simulated integers."""
    trace = _TRACE.get()
    return trace is not None and trace.ranges is not None


def activation(values: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The values as a layer reads them: through uint8 within `rounding`, unchanged elsewhere. It is one place."""
    return _activation(values)[0]


def product(
    operation: Callable[[Array, Array], Array],
    values: Float[Array, "*B"],
    kernel: Float[Array, "... O"],
    bias: Float[Array, " O"],
) -> Float[Array, "... O"]:
    """A product within `rounding`: of what it reads, through uint8, and its weights, through int8, plus its bias.

    The integers are multiplied and added as such, in float32, which is exact up to 2^24 in whatever order, and with
    factors of few bits. An export is traced with their multiples instead, which are numbers of the same function.

    Args:
      operation: a convolution or matrix product, (values, kernel) -> outputs with channels last.
      values: what it reads; its place.
      kernel: the weights, with normalisation folded into them.
      bias: of each output channel; through int32, with the scale of the products.
    """
    rounded, scale = _activation(values)
    largest = jnp.abs(kernel).max(tuple(range(kernel.ndim - 1)))
    scales = jnp.maximum(largest / WEIGHT_LEVELS, jnp.abs(bias) / (scale * BIAS_LEVELS))
    scales = jax.lax.stop_gradient(jnp.where(scales > 0, scales, 1.0))
    weights, biases = nearest(kernel / _last(scales, kernel.ndim)), nearest(bias / (scales * scale))
    if traced_plainly():
        outputs = operation(rounded, weights * _last(scales, kernel.ndim))
        return outputs + _last(biases * (scales * scale), outputs.ndim)
    outputs = operation(nearest(rounded / scale), weights)
    return (outputs + _last(biases, outputs.ndim)) * _last(scales * scale, outputs.ndim)


def _last(vector: Float[Array, " O"], rank: int) -> Float[Array, "... O"]:
    """The vector along the last of so many axes."""
    return vector.reshape(*(1,) * (rank - 1), -1)


def _activation(values: Array) -> tuple[Array, Array]:
    """The values as a layer reads them, and the scale of their integers."""
    trace, one = _TRACE.get(), jnp.ones((), jnp.float32)
    if trace is None:
        return values, one
    place = len(trace.seen)
    if trace.ranges is None:
        trace.seen.append(_bounds(values, trace.rows))
        return values, one
    if place >= trace.ranges.shape[0]:
        raise ValueError(f"The network has more than the {place} places whose ranges were taken.")
    trace.seen.append(trace.ranges[place])
    scale, zero = step(trace.ranges[place])
    return through_uint8(values, scale, zero), scale


def _bounds(values: Float[Array, "B *S"], rows: Bool[Array, " B"] | None) -> Float[Array, " 2"]:
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axes), values.max(axes)
    if rows is not None:
        low, high = jnp.where(rows, low, jnp.inf), jnp.where(rows, high, -jnp.inf)
    return jnp.stack([low.min(), high.max()])


def step(bounds: Float[Array, " 2"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Scale and zero point of a range, which is widened to contain 0: padding has to be exact."""
    low, high = jnp.minimum(bounds[0], 0.0), jnp.maximum(bounds[1], 0.0)
    scale = jnp.maximum((high - low) / ACTIVATION_LEVELS, SMALLEST_SCALE)
    return scale, jnp.clip(jnp.round(-low / scale), 0.0, ACTIVATION_LEVELS)


@jax.jit
def uint8_and_back(values: Array, scale: Array, zero: Array) -> Array:
    """scale * (integer - zero), with the integer nearest to values / scale + zero, from 0 to 255.

    It is jitted so that an export recognises it in a jaxpr by its name.
    """
    integers = jnp.clip(jnp.round(values / scale) + zero, 0.0, ACTIVATION_LEVELS)
    return scale * (integers - zero)


@jax.custom_vjp
def through_uint8(values: Array, scale: Array, zero: Array) -> Array:
    """`uint8_and_back`, with the gradient of clipping to the range."""
    return uint8_and_back(values, scale, zero)


def _through_uint8_forward(values, scale, zero):
    inside = (values >= -scale * zero) & (values <= scale * (ACTIVATION_LEVELS - zero))
    return uint8_and_back(values, scale, zero), inside


def _through_uint8_backward(inside, cotangent):
    zeros = jnp.zeros((), jnp.float32)
    return jnp.where(inside, cotangent, 0.0), zeros, zeros


through_uint8.defvjp(_through_uint8_forward, _through_uint8_backward)


@jax.custom_vjp
def nearest(numbers: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The nearest integers, with the gradient of the identity."""
    return jnp.round(numbers)


nearest.defvjp(lambda numbers: (jnp.round(numbers), None), lambda _, cotangent: (cotangent,))
