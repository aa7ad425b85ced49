"""Layers that all architectures share. They cast their parameters to the dtype of the inputs and compute in it."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emokd.models import rounding
from emokd.models.convolution import convolution, widen

Padding = str | int | Sequence[tuple[int, int]]

_ROWS: contextvars.ContextVar[tuple[Array, Array] | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def statistics_of(rows: Bool[Array, " B"] | None) -> Iterator[None]:
    """Within this context BatchNorm in training takes its statistics from the marked examples alone; None: from all.

    A layer's first axis may be a multiple of B, as for the frames of videos: then each example has as many consecutive
    entries. Where no example is marked, the layer normalises by all and keeps its running statistics.
    """
    token = _ROWS.set(None if rows is None else (rows, rows.any()))
    try:
        yield
    finally:
        _ROWS.reset(token)


def _as_inputs(arrays, *, dtype=None):
    """Casts parameters to the dtype of the inputs, the first of the arrays."""
    return tuple(None if x is None else x.astype(dtype or arrays[0].dtype) for x in arrays)


def _as_statistics(arrays, *, dtype=None):
    """Casts everything to the dtype of the inputs, but at least to float32."""
    return _as_inputs((widen(arrays[0]), *arrays[1:]), dtype=dtype)


class Conv(nnx.Conv):
    """Convolution, channels last, with `flax.nnx.Conv`'s parameters: `kernel` [kh, kw, C / groups, O] and `bias`.

    Args:
      in_features: channels in.
      out_features: channels out.
      kernel_size: side of a square kernel, or the size in each spatial dimension.
      strides: step, the same or one for each spatial dimension.
      padding: None for `(k - 1) // 2` on both sides as is usual in PyTorch, "SAME" for TensorFlow's (uneven at
        stride 2), "VALID", a number, or (low, high) for each spatial dimension.
      groups: number of groups of channels; `in_features` groups make the convolution depthwise.
      use_bias: whether there is a bias.
      rngs: source of the fresh parameters, normal with variance 2 / fan-out (He et al. 2015).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        padding: Padding | None = None,
        groups: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        super().__init__(
            in_features,
            out_features,
            size,
            strides,
            padding=[((k - 1) // 2, (k - 1) // 2) for k in size] if padding is None else padding,
            feature_group_count=groups,
            use_bias=use_bias,
            kernel_init=nnx.initializers.variance_scaling(2.0 * groups, "fan_out", "normal"),
            promote_dtype=_as_inputs,
            conv_general_dilated=convolution,
            rngs=rngs,
        )

    def with_kernel(
        self, inputs: Float[Array, "B H W C"], kernel: Float[Array, "kh kw D O"]
    ) -> Float[Array, "B H2 W2 O"]:
        """The convolution of maps with another kernel than its own, without a bias."""
        return convolution(
            inputs,
            kernel,
            (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides),
            [(self.padding,) * 2] * 2 if isinstance(self.padding, int) else self.padding,
            feature_group_count=self.feature_group_count,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation over all axes but the last, in at least float32; the result has the inputs' dtype.

    In training the statistics are those of every row, or of the rows that `statistics_of` marks.

    Args:
      features: channels.
      epsilon: added to the variance.
      momentum: share of the old running statistics that is kept; 0.9 corresponds to PyTorch's 0.1.
      rngs: required by flax.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, momentum: float = 0.9, rngs: nnx.Rngs):
        super().__init__(features, epsilon=epsilon, momentum=momentum, promote_dtype=_as_statistics, rngs=rngs)

    def __call__(self, inputs: Array) -> Array:
        counting = _ROWS.get()
        if counting is None or self.use_running_average:
            return super().__call__(inputs).astype(inputs.dtype)
        rows, some = counting
        entries = inputs.shape[0] // rows.shape[0]
        counts = jnp.broadcast_to(rows[:, None], (rows.shape[0], entries)).reshape(-1, *(1 for _ in inputs.shape[1:]))
        before = self.mean[...], self.var[...]
        outputs = super().__call__(inputs, mask=counts | ~some)
        for statistic, old in zip((self.mean, self.var), before, strict=True):
            statistic[...] = jnp.where(some, statistic[...], old)
        return outputs.astype(inputs.dtype)


def conv_norm(conv: Conv, norm: BatchNorm, inputs: Array) -> Array:
    """`norm(conv(inputs))`; within `rounding.rounding` in simulated integers, as one convolution.

    Its weights hold the normalisation by the running statistics, as those of an exported network do.
    """
    if not rounding.computes_in_integers():
        return norm(conv(rounding.activation(inputs)))
    gain = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
    bias = norm.bias[...] - norm.mean[...] * gain
    if conv.bias is not None:
        bias = bias + conv.bias[...] * gain
    kernel = conv.kernel[...]
    folded = kernel * gain.reshape(*(1 for _ in kernel.shape[1:]), -1)
    return rounding.product(conv.with_kernel, inputs, folded, bias)


def linear(layer: nnx.Linear, inputs: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """`layer(inputs)` of a layer with a bias; within `rounding.rounding` in simulated integers."""
    if not rounding.computes_in_integers():
        return layer(rounding.activation(inputs))
    assert layer.bias is not None
    return rounding.product(jnp.dot, inputs, layer.kernel[...], layer.bias[...])


def add(x: Float[Array, "*B"], y: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The sum of two maps, each read through its integers within `rounding.rounding`."""
    return rounding.activation(x) + rounding.activation(y)


class Linear(nnx.Linear):
    """Linear layer on the last axis, with `flax.nnx.Linear`'s parameters: `kernel` [I, O] and `bias`.

    Args:
      in_features: size in.
      out_features: size out.
      use_bias: whether there is a bias.
      kernel_init: of the fresh weights; by default normal with deviation 0.02, as is usual in transformers.
      rngs: source of the fresh parameters; biases are 0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            out_features,
            use_bias=use_bias,
            kernel_init=kernel_init or nnx.initializers.normal(0.02),
            promote_dtype=_as_inputs,
            rngs=rngs,
        )


class LayerNorm(nnx.LayerNorm):
    """Layer normalisation of the last axis, in at least float32; the result has the inputs' dtype.

    Args:
      features: channels.
      epsilon: added to the variance.
      rngs: required by flax.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs):
        super().__init__(features, epsilon=epsilon, use_fast_variance=False, promote_dtype=_as_statistics, rngs=rngs)

    def __call__(self, inputs: Array) -> Array:
        return super().__call__(inputs).astype(inputs.dtype)


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, and an activation if one is given.

    Args:
      in_features: channels in.
      out_features: channels out.
      kernel_size: side of a square kernel, or the size in each spatial dimension.
      strides: step of the convolution.
      padding: as for `Conv`.
      groups: groups of channels of the convolution.
      activation: applied last.
      epsilon: of the normalisation.
      rngs: source of the fresh parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        padding: Padding | None = None,
        groups: int = 1,
        activation: Callable[[Array], Array] | None = None,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(in_features, out_features, kernel_size, strides, padding=padding, groups=groups, rngs=rngs)
        self.norm = BatchNorm(out_features, epsilon=epsilon, rngs=rngs)
        self.activation = activation

    def __call__(self, inputs: Array) -> Array:
        outputs = conv_norm(self.conv, self.norm, inputs)
        return outputs if self.activation is None else self.activation(outputs)


def round_channels(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, at least 8 and never below 90% of it (Howard et al. 2017)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def global_average_pool(maps: Float[Array, "B *S D"]) -> Float[Array, "B D"]:
    """Mean over the spatial positions, in at least float32."""
    return widen(rounding.activation(maps)).mean(tuple(range(1, maps.ndim - 1)))


class SqueezeExcite(nnx.Module):
    """Scales channels by a gate computed from their means (Hu et al. 2018, as in EfficientNet).

    Args:
      features: channels.
      reduced: channels between the two layers.
      activation: between the two layers.
      rngs: source of the fresh parameters.
    """

    def __init__(
        self, features: int, reduced: int, *, activation: Callable[[Array], Array] = jax.nn.silu, rngs: nnx.Rngs
    ):
        self.reduce = Conv(features, reduced, 1, use_bias=True, rngs=rngs)
        self.expand = Conv(reduced, features, 1, use_bias=True, rngs=rngs)
        self.activation = activation

    def __call__(self, maps: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        means = global_average_pool(maps)[:, None, None, :]
        gate = jax.nn.sigmoid(self.expand(self.activation(self.reduce(means))))
        return maps * jnp.broadcast_to(gate.astype(maps.dtype), maps.shape)
