"""The age and gender network of face-api (MIT): a small Xception (Chollet 2017, arXiv 1610.02357) without BatchNorm.

Written from the published manifest's list of arrays and the authors' description.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.models.face_api_expression import MEAN
from emokd.models.layers import Conv, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.models.separable import SeparableConv
from emokd.signals import Signals


class Reduction(nnx.Module):
    """Two separable convolutions and max pooling at stride 2, plus a 1x1 convolution at stride 2 as the shortcut.

    Args:
      inputs: channels in.
      outputs: channels out.
      activate: whether a ReLU comes before the first separable convolution; the shortcut has none.
      rngs: source of the fresh parameters.
    """

    def __init__(self, inputs: int, outputs: int, *, activate: bool = True, rngs: nnx.Rngs):
        self.separables = nnx.List([SeparableConv(i, outputs, rngs=rngs) for i in (inputs, outputs)])
        self.shortcut = Conv(inputs, outputs, 1, 2, padding="SAME", use_bias=True, rngs=rngs)
        self.activate = activate

    @rematerializable
    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        x = self.separables[0](jax.nn.relu(maps) if self.activate else maps)
        x = self.separables[1](jax.nn.relu(x))
        return nnx.max_pool(x, (3, 3), (2, 2), "SAME") + self.shortcut(maps)


class Middle(nnx.Module):
    """A residual block of three separable convolutions with a ReLU before each."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.separables = nnx.List([SeparableConv(channels, channels, rngs=rngs) for _ in range(3)])

    @rematerializable
    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        x = maps
        for conv in self.separables:
            x = conv(jax.nn.relu(x))
        return x + maps


class FaceApiAgeGender(nnx.Module):
    """The backbone: RGB faces to features [B, 512], the spatial means of the last maps.

    Args:
      size: side of the pictures, pixels; the original's is 112.
      rngs: source of the fresh parameters.
    """

    def __init__(self, size: int = 112, *, rngs: nnx.Rngs):
        self.stem = Conv(3, 32, 3, 2, padding="SAME", use_bias=True, rngs=rngs)
        self.entry = nnx.List([Reduction(32, 64, activate=False, rngs=rngs), Reduction(64, 128, rngs=rngs)])
        self.middle = nnx.List([Middle(128, rngs=rngs) for _ in range(2)])
        self.exit = Reduction(128, 256, rngs=rngs)
        self.last = SeparableConv(256, 512, rngs=rngs)
        self.feature_size = 512
        self.preprocessing = Preprocessing(size, MEAN, (256 / 255,) * 3)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = jax.nn.relu(self.stem(images))
        for block in (*self.entry, *self.middle, self.exit):
            x = block(x)
        return Signals(features=global_average_pool(jax.nn.relu(self.last(x))))
