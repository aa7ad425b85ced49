"""The expression network of face-api (MIT): four dense blocks of separable convolutions, 324 thousand parameters.

There is no paper; written from the published manifest's list of arrays and the authors' description.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.models.layers import Conv, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.models.separable import SeparableConv
from emokd.signals import Signals

WIDTHS = (32, 64, 128, 256)
MEAN = (122.782 / 255, 117.001 / 255, 104.298 / 255)
"""Mean RGB that every network of face-api subtracts from pixels in [0, 1]."""


class Block(nnx.Module):
    """Four convolutions, the first at stride 2. Each later one reads the ReLU of the sum of all outputs before it."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, rngs: nnx.Rngs):
        down = (
            Conv(inputs, outputs, 3, 2, padding="SAME", use_bias=True, rngs=rngs)
            if first
            else SeparableConv(inputs, outputs, 2, rngs=rngs)
        )
        self.convs = nnx.List([down, *(SeparableConv(outputs, outputs, rngs=rngs) for _ in range(3))])

    @rematerializable
    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        total = jax.nn.relu(self.convs[0](maps))
        x = total
        for conv in self.convs[1:]:
            total = total + conv(x)
            x = jax.nn.relu(total)
        return x


class FaceApiExpression(nnx.Module):
    """The backbone: RGB faces to features [B, 256], the spatial means of the last maps.

    The original averages 7 x 7 positions, which are all positions at its size of 112.

    Args:
      size: side of the pictures, pixels.
      rngs: source of the fresh parameters.
    """

    def __init__(self, size: int = 112, *, rngs: nnx.Rngs):
        pairs = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.blocks = nnx.List([Block(i, o, first=i == 3, rngs=rngs) for i, o in pairs])
        self.feature_size = WIDTHS[-1]
        self.preprocessing = Preprocessing(size, MEAN, (1.0, 1.0, 1.0))

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = images
        for block in self.blocks:
            x = block(x)
        return Signals(features=global_average_pool(x))
