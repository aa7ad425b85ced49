"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), with torchvision's blocks and padding."""

from collections.abc import Iterator

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import ConvNorm, add, global_average_pool, round_channels
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

# Expansion, channels, repeats, stride of the first block of each stage (Table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nnx.Module):
    """Expansion, depthwise convolution, linear projection; added to its input where shapes allow."""

    def __init__(self, in_features: int, out_features: int, *, expansion: int, strides: int, rngs: nnx.Rngs):
        hidden = in_features * expansion
        relu6 = jax.nn.relu6
        self.expand = ConvNorm(in_features, hidden, 1, activation=relu6, rngs=rngs) if expansion > 1 else None
        self.depthwise = ConvNorm(hidden, hidden, 3, strides, groups=hidden, activation=relu6, rngs=rngs)
        self.project = ConvNorm(hidden, out_features, 1, rngs=rngs)
        self.residual = strides == 1 and in_features == out_features

    @rematerializable
    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        x = inputs if self.expand is None else self.expand(inputs)
        x = self.project(self.depthwise(x))
        return add(inputs, x) if self.residual else x


def _blocks(width: float) -> Iterator[tuple[int, int, int]]:
    """Expansion, channels and stride of each block."""
    for expansion, channels, repeats, strides in STAGES:
        for repeat in range(repeats):
            yield expansion, round_channels(channels * width), strides if repeat == 0 else 1


class MobileNetV2(nnx.Module):
    """MobileNetV2 without its classifier.

    Gives features [B, feature_size] and, among the intermediates, the "map" [B, H / 32, W / 32, feature_size] of
    which they are the mean.

    Args:
      width: multiplier of the channels; the feature size is 1280, and larger only where `width` is above 1.
      size: side of the pictures, pixels.
      rngs: source of the fresh parameters.

    Raises:
      InputError: the width is not positive.
    """

    def __init__(self, width: float = 1.0, size: int = 224, *, rngs: nnx.Rngs):
        if width <= 0:
            raise InputError(f"The width of MobileNetV2 must be above 0, not {width}. Usual: 0.35, 0.5, 0.75, 1, 1.4.")
        self.preprocessing = Preprocessing(size=size)
        self.feature_size = round_channels(1280 * max(1.0, width))
        channels = round_channels(32 * width)
        self.stem = ConvNorm(3, channels, 3, 2, activation=jax.nn.relu6, rngs=rngs)
        blocks = []
        for expansion, features, strides in _blocks(width):
            blocks.append(InvertedResidual(channels, features, expansion=expansion, strides=strides, rngs=rngs))
            channels = features
        self.blocks = nnx.List(blocks)
        self.last = ConvNorm(channels, self.feature_size, 1, activation=jax.nn.relu6, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        return Signals(features=global_average_pool(x), intermediates={"map": x})
