"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s", arXiv:2201.03545)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import Conv, LayerNorm, Linear, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

EXPANSION = 4
EPSILON = 1e-6
"""Added to every variance by the layer normalisations."""
FIRST_SCALE = 1e-6
"""What LayerScale begins with (Table 5 of the paper)."""
STRIDE = 4
"""Side of the stem's patches."""


class Block(nnx.Module):
    """A residual block: depthwise 7x7, layer normalisation, an MLP with a GELU for each place, LayerScale."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.depthwise = Conv(features, features, 7, groups=features, use_bias=True, rngs=rngs)
        self.norm = LayerNorm(features, epsilon=EPSILON, rngs=rngs)
        self.expand = Linear(features, EXPANSION * features, rngs=rngs)
        self.project = Linear(EXPANSION * features, features, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(features, FIRST_SCALE))

    @rematerializable
    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        x = self.expand(self.norm(self.depthwise(inputs)))
        x = self.project(jax.nn.gelu(x, approximate=False))
        return inputs + x * self.gamma[...].astype(x.dtype)[None, None, None]


class Stem(nnx.Module):
    """Splits the picture into patches of 4 x 4 pixels: a convolution, then layer normalisation."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv = Conv(3, features, STRIDE, STRIDE, padding="VALID", use_bias=True, rngs=rngs)
        self.norm = LayerNorm(features, epsilon=EPSILON, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        return self.norm(self.conv(images))


class Downsample(nnx.Module):
    """Halves both sides of a map: layer normalisation, then a 2x2 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(inputs, epsilon=EPSILON, rngs=rngs)
        self.conv = Conv(inputs, outputs, 2, 2, padding="VALID", use_bias=True, rngs=rngs)

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return self.conv(self.norm(maps))


class ConvNeXt(nnx.Module):
    """A ConvNeXt without its classifier.

    Gives features [B, feature_size], the layer-normalised mean of the last map, and, among the intermediates, that
    "map" [B, H / 32, W / 32, feature_size] itself, for four stages. There is no stochastic depth.

    Args:
      depths: number of blocks in each stage.
      widths: channels of each stage.
      size: side of the pictures in pixels.
      rngs: source of the fresh parameters.

    Raises:
      InputError: `depths` and `widths` are not two lists of as many positive whole numbers.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], size: int = 224, *, rngs: nnx.Rngs):
        lists = all(isinstance(each, Sequence) and not isinstance(each, str) for each in (depths, widths))
        if not (
            lists
            and 0 < len(depths) == len(widths)
            and all(isinstance(number, int) and number > 0 for number in (*depths, *widths))
        ):
            raise InputError(
                f"A ConvNeXt needs depths and widths, a positive whole number for each stage, such as (3, 3, 9, 3) and "
                f"(96, 192, 384, 768); not {depths!r} and {widths!r}."
            )
        self.preprocessing = Preprocessing(size=size)
        self.feature_size = widths[-1]
        self.stem = Stem(widths[0], rngs=rngs)
        self.downsamples = nnx.List([Downsample(*pair, rngs=rngs) for pair in zip(widths, widths[1:], strict=False)])
        self.stages = nnx.List(
            [
                nnx.List([Block(width, rngs=rngs) for _ in range(depth)])
                for depth, width in zip(depths, widths, strict=True)
            ]
        )
        self.norm = LayerNorm(self.feature_size, epsilon=EPSILON, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = self.stem(images)
        for index, blocks in enumerate(self.stages):
            x = self.downsamples[index - 1](x) if index else x
            for block in blocks:
                x = block(x)
        return Signals(features=self.norm(global_average_pool(x)), intermediates={"map": x})


def convnext_tiny(
    size: int = 224,
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    *,
    rngs: nnx.Rngs,
) -> ConvNeXt:
    """ConvNeXt-T: features [B, 768], 27.8 million parameters."""
    return ConvNeXt(depths, widths, size, rngs=rngs)
