"""EfficientNet B0 and B2 (Tan and Le 2019, arXiv:1905.11946) and EfficientNet-Lite0.

The style "tensorflow" is that of the original training: padding is TensorFlow's "SAME" and BatchNorm's epsilon is 1e-3,
as in efficientnet_pytorch and in the files that timm calls `tf_...`. In the style "pytorch" padding is the same on both
sides and epsilon is 1e-5, as in torchvision and in timm's `efficientnet_...`.
"""

import functools
import math
from collections.abc import Callable, Mapping

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError, nearest
from emokd.models.layers import ConvNorm, SqueezeExcite, global_average_pool, round_channels
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

STYLES: Mapping[str, tuple[str | None, float]] = {"tensorflow": ("SAME", 1e-3), "pytorch": (None, 1e-5)}
"""Padding of every convolution and epsilon of its normalisation, by style."""
# Expansion, channels, repeats, stride of the first block, kernel size of each stage (Table 1).
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, HEAD = 32, 1280
WIDTHS = {"efficientnet_b0": 1.0, "efficientnet_b2": 1.1, "efficientnet_lite0": 1.0}
DEPTHS = {"efficientnet_b0": 1.0, "efficientnet_b2": 1.2, "efficientnet_lite0": 1.0}


class Block(nnx.Module):
    """Inverted residual; with `squeeze`, a squeeze-excite module between depthwise convolution and projection."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        expansion: int,
        strides: int,
        kernel_size: int,
        squeeze: bool,
        style: str,
        activation: Callable[[Array], Array],
        rngs: nnx.Rngs,
    ):
        hidden = in_features * expansion
        padding, epsilon = STYLES[style]
        layer = functools.partial(ConvNorm, padding=padding, epsilon=epsilon, rngs=rngs)
        self.expand = layer(in_features, hidden, 1, activation=activation) if expansion > 1 else None
        self.depthwise = layer(hidden, hidden, kernel_size, strides, groups=hidden, activation=activation)
        reduced = max(1, in_features // 4)
        self.squeeze_excite = SqueezeExcite(hidden, reduced, activation=activation, rngs=rngs) if squeeze else None
        self.project = layer(hidden, out_features, 1)
        self.residual = strides == 1 and in_features == out_features

    @rematerializable
    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        x = inputs if self.expand is None else self.expand(inputs)
        x = self.depthwise(x)
        x = x if self.squeeze_excite is None else self.squeeze_excite(x)
        x = self.project(x)
        return inputs + x if self.residual else x


class EfficientNet(nnx.Module):
    """An EfficientNet without its classifier.

    Gives features [B, feature_size] and, among the intermediates, the "map" [B, H / 32, W / 32, feature_size] of
    which they are the mean. There is no stochastic depth.

    Args:
      width: multiplier of the channels.
      depth: multiplier of the repeats.
      lite: whether it is the Lite form: ReLU6, no squeeze-excite, and stem, head, first and last stage sized as in B0.
      style: a name in `STYLES`.
      preprocessing: size and normalisation of the pictures.
      rngs: source of the fresh parameters.

    Raises:
      InputError: there is no such style.
    """

    def __init__(
        self,
        width: float,
        depth: float,
        *,
        lite: bool = False,
        style: str = "tensorflow",
        preprocessing: Preprocessing,
        rngs: nnx.Rngs,
    ):
        if style not in STYLES:
            raise InputError(
                f"There is no style {style!r} of EfficientNet.{nearest(str(style), STYLES)} Known: {', '.join(STYLES)}."
            )
        activation = jax.nn.relu6 if lite else jax.nn.silu
        padding, epsilon = STYLES[style]
        layer = functools.partial(ConvNorm, padding=padding, epsilon=epsilon, activation=activation, rngs=rngs)
        self.preprocessing = preprocessing
        self.feature_size = HEAD if lite else round_channels(HEAD * width)
        channels = STEM if lite else round_channels(STEM * width)
        self.stem = layer(3, channels, 3, 2)
        stages = []
        for index, (expansion, base, repeats, strides, kernel_size) in enumerate(STAGES):
            fixed = lite and index in (0, len(STAGES) - 1)
            features = round_channels(base * width)
            blocks = []
            for repeat in range(repeats if fixed else math.ceil(repeats * depth)):
                block = Block(
                    channels,
                    features,
                    expansion=expansion,
                    strides=strides if repeat == 0 else 1,
                    kernel_size=kernel_size,
                    squeeze=not lite,
                    style=style,
                    activation=activation,
                    rngs=rngs,
                )
                blocks.append(block)
                channels = features
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.last = layer(channels, self.feature_size, 1)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        x = self.stem(images)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        x = self.last(x)
        return Signals(features=global_average_pool(x), intermediates={"map": x})


def efficientnet_b0(size: int = 224, style: str = "tensorflow", *, rngs: nnx.Rngs) -> EfficientNet:
    """EfficientNet-B0."""
    name = "efficientnet_b0"
    return EfficientNet(WIDTHS[name], DEPTHS[name], style=style, preprocessing=Preprocessing(size=size), rngs=rngs)


def efficientnet_b2(size: int = 260, style: str = "tensorflow", *, rngs: nnx.Rngs) -> EfficientNet:
    """EfficientNet-B2."""
    name = "efficientnet_b2"
    return EfficientNet(WIDTHS[name], DEPTHS[name], style=style, preprocessing=Preprocessing(size=size), rngs=rngs)


def efficientnet_lite0(size: int = 224, style: str = "tensorflow", *, rngs: nnx.Rngs) -> EfficientNet:
    """EfficientNet-Lite0.

    In the style "tensorflow" pixels are scaled to [-1, 1], the range that agrees with the published stem's running
    statistics. In the style "pytorch" they are standardised by ImageNet's usual mean and deviation.
    """
    name = "efficientnet_lite0"
    preprocessing = Preprocessing(size=size)
    if style == "tensorflow":
        preprocessing = Preprocessing(size=size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return EfficientNet(WIDTHS[name], DEPTHS[name], lite=True, style=style, preprocessing=preprocessing, rngs=rngs)
