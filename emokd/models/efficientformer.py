"""EfficientFormer L1, L3 and L7 (Li et al. 2022, arXiv:2206.01191): pooling blocks on maps, then attention on tokens.

The attention learns a bias for every offset on a grid of 7 x 7 tokens, so pictures must be 224 x 224.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.convolution import widen
from emokd.models.layers import BatchNorm, Conv, LayerNorm, Linear, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

SIZE = 224
SIDE = SIZE // 32
EXPANSION = 4
HEADS, KEY, VALUE = 8, 32, 128

# For each pair of tokens, the index of their absolute offset (rows * SIDE + columns); tokens are in row-major order.
_ROWS, _COLUMNS = np.divmod(np.arange(SIDE**2), SIDE)
OFFSETS = np.abs(np.subtract.outer(_ROWS, _ROWS)) * SIDE + np.abs(np.subtract.outer(_COLUMNS, _COLUMNS))


class Unit(nnx.Module):
    """A convolution with a bias, and its BatchNorm."""

    def __init__(self, in_features: int, out_features: int, kernel_size: int, strides: int = 1, *, rngs: nnx.Rngs):
        self.conv = Conv(in_features, out_features, kernel_size, strides, use_bias=True, rngs=rngs)
        self.norm = BatchNorm(out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        return self.norm(self.conv(inputs))


class Pooling(nnx.Module):
    """The pooling mixer: the mean over the 3x3 neighbourhood (positions outside the map excluded), minus the input."""

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        mean = nnx.avg_pool(widen(maps), (3, 3), padding=[(1, 1), (1, 1)], count_include_pad=False)
        return mean.astype(maps.dtype) - maps


class ConvMlp(nnx.Module):
    """Two 1x1 convolutions, each with a BatchNorm, and a GELU between them."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.expand = Unit(features, EXPANSION * features, 1, rngs=rngs)
        self.project = Unit(EXPANSION * features, features, 1, rngs=rngs)

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return self.project(jax.nn.gelu(self.expand(maps), approximate=False))


class Attention(nnx.Module):
    """Layer normalisation, then self-attention with a learned bias for each head and offset."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(features, rngs=rngs)
        self.qkv = Linear(features, HEADS * (2 * KEY + VALUE), rngs=rngs)
        self.attention_biases = nnx.Param(jnp.zeros((HEADS, SIDE**2)))
        self.project = Linear(HEADS * VALUE, features, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        batch, count, _ = tokens.shape
        parts = self.qkv(self.norm(tokens)).reshape(batch, count, HEADS, 2 * KEY + VALUE)
        query, key, value = jnp.split(parts, (KEY, 2 * KEY), axis=-1)
        scores = widen(jnp.einsum("bqhc,bkhc->bhqk", query, key)) * KEY**-0.5
        biases = self.attention_biases[...][:, OFFSETS].astype(scores.dtype)
        weights = jax.nn.softmax(scores + biases[None]).astype(tokens.dtype)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value)
        return self.project(mixed.reshape(batch, count, HEADS * VALUE))


class TokenMlp(nnx.Module):
    """Layer normalisation, then two linear layers with a GELU between them."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(features, rngs=rngs)
        self.expand = Linear(features, EXPANSION * features, rngs=rngs)
        self.project = Linear(EXPANSION * features, features, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        return self.project(jax.nn.gelu(self.expand(self.norm(tokens)), approximate=False))


class MetaBlock(nnx.Module):
    """Residual token mixer, then residual MLP, each with a learned scale per channel (LayerScale), at first 1e-5."""

    def __init__(self, mixer: nnx.Module, mlp: nnx.Module, features: int):
        self.mixer = mixer
        self.mlp = mlp
        self.layer_scale_1 = nnx.Param(jnp.full(features, 1e-5))
        self.layer_scale_2 = nnx.Param(jnp.full(features, 1e-5))

    @rematerializable
    def __call__(self, inputs: Float[Array, "B *S C"]) -> Float[Array, "B *S C"]:
        x = inputs + _scale(self.mixer(inputs), self.layer_scale_1[...])
        return x + _scale(self.mlp(x), self.layer_scale_2[...])


def _scale(x: Float[Array, "B *S C"], scale: Float[Array, " C"]) -> Float[Array, "B *S C"]:
    return x * jnp.expand_dims(scale.astype(x.dtype), tuple(range(x.ndim - 1)))


class ToTokens(nnx.Module):
    """Flattens a map to a sequence of tokens. It counts as one of the blocks, as in the published weights."""

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B N C"]:
        return maps.reshape(maps.shape[0], -1, maps.shape[-1])


class EfficientFormer(nnx.Module):
    """An EfficientFormer without its classifiers.

    Gives features [B, feature_size] and, among the intermediates, the normalised "map" [B, 7, 7, feature_size] of
    which they are the mean. There is no stochastic depth, as in the published training.

    Args:
      depths: number of blocks in each stage.
      widths: channels of each stage.
      attention_blocks: how many blocks at the end of the last stage use attention; the others use pooling.
      rngs: source of the fresh parameters.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], attention_blocks: int, *, rngs: nnx.Rngs):
        self.preprocessing = Preprocessing(size=SIZE)
        self.feature_size = widths[-1]
        self.stem = nnx.List(
            [Unit(3, widths[0] // 2, 3, 2, rngs=rngs), Unit(widths[0] // 2, widths[0], 3, 2, rngs=rngs)]
        )
        pooling_blocks = [*depths[:-1], depths[-1] - attention_blocks]
        stages = [
            [MetaBlock(Pooling(), ConvMlp(width, rngs=rngs), width) for _ in range(depth)]
            for depth, width in zip(pooling_blocks, widths, strict=True)
        ]
        width = widths[-1]
        stages[-1].append(ToTokens())
        for _ in range(attention_blocks):
            stages[-1].append(MetaBlock(Attention(width, rngs=rngs), TokenMlp(width, rngs=rngs), width))
        self.stages = nnx.List([nnx.List(blocks) for blocks in stages])
        self.downsamples = nnx.List([Unit(*pair, 3, 2, rngs=rngs) for pair in zip(widths, widths[1:], strict=False)])
        self.norm = LayerNorm(width, rngs=rngs)

    def __call__(self, images: Float[Array, "B 224 224 3"]) -> Signals:
        """Gives the features of normalised pictures.

        Raises:
          InputError: the pictures are not 224 x 224.
        """
        if images.shape[1:] != (SIZE, SIZE, 3):
            height, width, channels = images.shape[1:]
            raise InputError(
                f"EfficientFormer takes RGB pictures of {SIZE} x {SIZE} pixels only, because its attention knows a "
                f"grid of {SIDE} x {SIDE} tokens; it was given {height} x {width} x {channels}. "
                f"Set the network's size to {SIZE}, or choose another model for other sizes."
            )
        x = images
        for unit in self.stem:
            x = jax.nn.relu(unit(x))
        for index, blocks in enumerate(self.stages):
            x = self.downsamples[index - 1](x) if index else x
            for block in blocks:
                x = block(x)
        maps = self.norm(x).reshape(-1, SIDE, SIDE, self.feature_size)
        return Signals(features=global_average_pool(maps), intermediates={"map": maps})


def efficientformer_l1(*, rngs: nnx.Rngs) -> EfficientFormer:
    """EfficientFormer-L1: features [B, 448]."""
    return EfficientFormer((3, 2, 6, 4), (48, 96, 224, 448), 1, rngs=rngs)


def efficientformer_l3(*, rngs: nnx.Rngs) -> EfficientFormer:
    """EfficientFormer-L3: features [B, 512]."""
    return EfficientFormer((4, 4, 12, 6), (64, 128, 320, 512), 4, rngs=rngs)


def efficientformer_l7(*, rngs: nnx.Rngs) -> EfficientFormer:
    """EfficientFormer-L7: features [B, 768]."""
    return EfficientFormer((6, 6, 18, 8), (96, 192, 384, 768), 8, rngs=rngs)
