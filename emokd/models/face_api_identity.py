"""The identity network of face-api (MIT): dlib's residual network of 29 convolutions, 5.6 million parameters.

By its authors' threshold, two faces are of one person where their embeddings are closer than 0.6. Learned scales and
shifts take BatchNorm's place. Written from the published manifest's list of arrays and the authors' description.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.face_api_expression import MEAN
from emokd.models.layers import Conv, Linear, global_average_pool
from emokd.models.pooling import max_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

EMBEDDING = 128
# Channels of each block, and whether it halves the sides.
BLOCKS = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)
SMALLEST = 103
"""The smallest side, in pixels, at which the last block still has an input."""


class Affine(nnx.Module):
    """Scales and shifts each channel."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))

    def __call__(self, maps: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        scale, bias = (p[...].astype(maps.dtype)[None, None, None] for p in (self.scale, self.bias))
        return maps * scale + bias


class Unit(nnx.Module):
    """A convolution with a bias, and an `Affine`. Padding keeps the sides at stride 1; there is none at stride 2."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, strides: int = 1, *, rngs: nnx.Rngs):
        padding = "SAME" if strides == 1 else "VALID"
        self.conv = Conv(inputs, outputs, kernel_size, strides, padding=padding, use_bias=True, rngs=rngs)
        self.scale = Affine(outputs)

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        return self.scale(self.conv(maps))


class Block(nnx.Module):
    """A residual block of two 3x3 units.

    Where the block halves the sides, its shortcut is the input averaged over 2 x 2 positions. Zeros fill up the
    channels that the shortcut lacks, and the last row and column that the units' maps may lack.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, *, rngs: nnx.Rngs):
        self.units = nnx.List(
            [Unit(inputs, outputs, 3, 2 if down else 1, rngs=rngs), Unit(outputs, outputs, 3, rngs=rngs)]
        )
        self.down = down

    @rematerializable
    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        x = self.units[1](jax.nn.relu(self.units[0](maps)))
        if self.down:
            maps = _halved(maps)
            maps = jnp.pad(maps, ((0, 0), (0, 0), (0, 0), (0, x.shape[3] - maps.shape[3])))
            lacking = [(0, maps.shape[axis] - x.shape[axis]) for axis in (1, 2)]
            x = jnp.pad(x, ((0, 0), *lacking, (0, 0)))
        return jax.nn.relu(x + maps)


def _halved(maps: Float[Array, "B H W D"]) -> Float[Array, "B H2 W2 D"]:
    """Means over 2 x 2 positions; an odd last row or column is dropped."""
    batch, height, width, channels = maps.shape
    maps = maps[:, : height // 2 * 2, : width // 2 * 2]
    return maps.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


class FaceApiIdentity(nnx.Module):
    """The backbone: RGB faces to features [B, 128], the embedding.

    Args:
      size: side of the pictures, pixels; the original's is 150.
      rngs: source of the fresh parameters.
    """

    def __init__(self, size: int = 150, *, rngs: nnx.Rngs):
        self.stem = Unit(3, 32, 7, 2, rngs=rngs)
        channels, blocks = 32, []
        for outputs, down in BLOCKS:
            blocks.append(Block(channels, outputs, down, rngs=rngs))
            channels = outputs
        self.blocks = nnx.List(blocks)
        self.embedding = Linear(channels, EMBEDDING, use_bias=False, rngs=rngs)
        self.feature_size = EMBEDDING
        self.preprocessing = Preprocessing(size, MEAN, (256 / 255,) * 3)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the embeddings of normalised pictures.

        Raises:
          InputError: a side is below `SMALLEST`.
        """
        if min(images.shape[1:3]) < SMALLEST:
            raise InputError(
                f"face_api_identity needs pictures of {SMALLEST} pixels or more, not {images.shape[1:3]}: "
                f"raise the size of that network; its own is 150."
            )
        x = max_pool(jax.nn.relu(self.stem(images)), 3, 2)
        for block in self.blocks:
            x = block(x)
        return Signals(features=self.embedding(global_average_pool(x)))
