"""The expression network of face-api (MIT): four dense blocks of separable convolutions, 324 thousand parameters.

There is no paper; written from the arrays in the published manifest and its authors' description.
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
"""What all networks of face-api subtract from pixels in [0, 1]."""


class Block(nnx.Module):
    """Four convolutions, the first at stride 2; each of the others sees the sum of all before it, after a ReLU."""

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
    """The backbone: RGB faces to features [B, 256], the means of the last maps.

    The original averages 7 x 7 positions, which at its own size of 112 are all that there are.

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
