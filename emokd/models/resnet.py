"""ResNet (He et al. 2016, arXiv 1512.03385), with the stride on the 3x3 as in torchvision ("v1.5")."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import BatchNorm, Conv, add, conv_norm, global_average_pool
from emokd.models.pooling import max_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals


class Unit(nnx.Module):
    """A convolution and its BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv = Conv(inputs, outputs, kernel_size, stride, rngs=rngs)
        self.norm = BatchNorm(outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        return conv_norm(self.conv, self.norm, x)


class Block(nnx.Module):
    """A residual block: two 3x3 units, or a bottleneck of 1x1, 3x3 and 1x1 units.

    Args:
      inputs: channels in.
      width: channels inside.
      stride: of the first 3x3 unit.
      bottleneck: whether it is a bottleneck, with 4 * width channels out; otherwise `width` channels out.
      rngs: source of the fresh parameters.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, *, rngs: nnx.Rngs):
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        self.units = nnx.List([Unit(*shape, rngs=rngs) for shape in shapes])
        projects = stride != 1 or inputs != outputs
        self.shortcut = Unit(inputs, outputs, 1, stride, rngs=rngs) if projects else None

    @rematerializable
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        residual = x if self.shortcut is None else self.shortcut(x)
        for unit in self.units[:-1]:
            x = jax.nn.relu(unit(x))
        return jax.nn.relu(add(self.units[-1](x), residual))


class ResNet(nnx.Module):
    """A ResNet of four stages.

    Args:
      depths: number of blocks in each stage.
      bottleneck: whether blocks are bottlenecks.
      channels: of the input: 3 for ImageNet's RGB, 1 for grey pictures and other maps (normalised by 0.5, 0.5).
      rngs: source of the fresh parameters.

    Raises:
      InputError: `channels` is neither 1 nor 3.
    """

    def __init__(self, depths: Sequence[int], bottleneck: bool, channels: int = 3, *, rngs: nnx.Rngs):
        if channels not in (1, 3):
            raise InputError(f"A ResNet takes 1 or 3 input channels, not {channels}.")
        self.stem = Unit(channels, 64, 7, 2, rngs=rngs)
        size = 64
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Block(size, 64 * 2**stage, stride, bottleneck, rngs=rngs))
                size = 64 * 2**stage * (4 if bottleneck else 1)
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.feature_size = size
        self.preprocessing = Preprocessing() if channels == 3 else Preprocessing(mean=(0.5,), std=(0.5,), channels=1)

    def __call__(self, images: Float[Array, "B H W C"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = jax.nn.relu(self.stem(images))
        x = max_pool(x, 3, 2, ((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return Signals(features=global_average_pool(x))


def resnet18(channels: int = 3, *, rngs: nnx.Rngs) -> ResNet:
    """ResNet-18: features [B, 512], 11.2 million parameters."""
    return ResNet((2, 2, 2, 2), False, channels, rngs=rngs)


def resnet50(channels: int = 3, *, rngs: nnx.Rngs) -> ResNet:
    """ResNet-50: features [B, 2048], 23.5 million parameters."""
    return ResNet((3, 4, 6, 3), True, channels, rngs=rngs)
