"""R3D-18 (Tran et al. 2018, arXiv 1711.11248): ResNet-18 with 3x3x3 convolutions, laid out as in torchvision."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import ConvNorm, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

DEPTHS = (2, 2, 2, 2)
KINETICS = Preprocessing(size=112, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))
"""Frame size and normalisation of torchvision's video networks, which were trained on Kinetics-400."""


class Block(nnx.Module):
    """A residual block of two 3x3x3 units.

    Args:
      inputs: channels in.
      outputs: channels out.
      stride: of the first unit, in time and space alike.
      rngs: source of the fresh parameters.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        strides = (stride, stride, stride)
        self.units = nnx.List(
            [
                ConvNorm(inputs, outputs, (3, 3, 3), strides, rngs=rngs),
                ConvNorm(outputs, outputs, (3, 3, 3), (1, 1, 1), rngs=rngs),
            ]
        )
        projects = stride != 1 or inputs != outputs
        self.shortcut = ConvNorm(inputs, outputs, (1, 1, 1), strides, rngs=rngs) if projects else None

    @rematerializable
    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B t h w c"]:
        residual = x if self.shortcut is None else self.shortcut(x)
        first, second = self.units
        return jax.nn.relu(second(jax.nn.relu(first(x))) + residual)


class R3D18(nnx.Module):
    """R3D-18 without its classifier: features [B, 8 * width], 33.2 million parameters at the default width.

    Args:
      width: channels of the stem and the first stage; each further stage has twice as many as the one before.
      rngs: source of the fresh parameters.

    Raises:
      InputError: `width` is below 1.
    """

    takes_videos = True

    def __init__(self, width: int = 64, *, rngs: nnx.Rngs):
        if width < 1:
            raise InputError(f"r3d18 needs width >= 1, not {width}.")
        self.stem = ConvNorm(3, width, (3, 7, 7), (1, 2, 2), rngs=rngs)
        size = width
        stages = []
        for stage, depth in enumerate(DEPTHS):
            blocks = []
            for block in range(depth):
                blocks.append(Block(size, width * 2**stage, 2 if stage and not block else 1, rngs=rngs))
                size = width * 2**stage
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.feature_size = size
        self.preprocessing = KINETICS

    def __call__(self, video: Float[Array, "B T H W 3"]) -> Signals:
        """Gives the features of normalised clips of T frames; each of the last three stages halves T, rounding up."""
        x = jax.nn.relu(self.stem(video))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return Signals(features=global_average_pool(x))
