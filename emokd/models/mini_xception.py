"""mini-Xception (Arriaga, Valdenegro-Toro, Ploeger 2017, arXiv 1710.07557), as its authors' FER2013 file has it.

The original ends in a 3x3 convolution to one map per class, whose mean over positions is the logit. The mean of a
convolution is linear in nine means of its input, one for each kernel position. Here these 9 x 128 means of the last
maps are the features, and the original's last convolution becomes an ordinary linear head. [ours]
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.models.layers import BatchNorm, Conv, global_average_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

STEM = 8
WIDTHS = (16, 32, 64, 128)


def _norm(features: int, rngs: nnx.Rngs) -> BatchNorm:
    """BatchNorm with Keras's defaults."""
    return BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs)


class SeparableConv(nnx.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 across channels."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.depthwise = Conv(inputs, inputs, 3, padding="SAME", groups=inputs, rngs=rngs)
        self.pointwise = Conv(inputs, outputs, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        return self.pointwise(self.depthwise(x))


class Block(nnx.Module):
    """Two separable convolutions and max pooling at stride 2, plus a 1x1 convolution at stride 2 as the shortcut."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.shortcut_conv = Conv(inputs, outputs, 1, 2, padding="SAME", rngs=rngs)
        self.shortcut_norm = _norm(outputs, rngs)
        self.separables = nnx.List([SeparableConv(i, outputs, rngs=rngs) for i in (inputs, outputs)])
        self.norms = nnx.List([_norm(outputs, rngs) for _ in range(2)])

    @rematerializable
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        shortcut = self.shortcut_norm(self.shortcut_conv(x))
        x = jax.nn.relu(self.norms[0](self.separables[0](x)))
        x = self.norms[1](self.separables[1](x))
        return nnx.max_pool(x, (3, 3), (2, 2), "SAME") + shortcut


class Stem(nnx.Module):
    """Two 3x3 convolutions without padding."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.convs = nnx.List([Conv(i, STEM, 3, padding="VALID", rngs=rngs) for i in (1, STEM)])
        self.norms = nnx.List([_norm(STEM, rngs) for _ in range(2)])

    def __call__(self, x: Float[Array, "B H W 1"]) -> Float[Array, "B H2 W2 C"]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(conv(x)))
        return x


class MiniXception(nnx.Module):
    """The backbone: 64 x 64 grey pictures in [-1, 1] to features [B, 1152], 49 thousand parameters.

    A linear head on the features computes exactly what the original's last convolution does.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = Stem(rngs=rngs)
        self.blocks = nnx.List([Block(i, o, rngs=rngs) for i, o in zip((STEM, *WIDTHS[:-1]), WIDTHS, strict=True)])
        self.feature_size = 9 * WIDTHS[-1]
        self.preprocessing = Preprocessing(size=64, mean=(0.5,), std=(0.5,), channels=1)

    def __call__(self, images: Float[Array, "B H W 1"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return Signals(features=window_means(x))


def window_means(maps: Float[Array, "B H W D"]) -> Float[Array, "B 9*D"]:
    """Means of the zero-padded maps over what each position of a 3x3 kernel meets: D channels for each of the nine.

    The kernel's positions are in row-major order. [ours]
    """
    _, height, width, _ = maps.shape
    padded = jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate([global_average_pool(window) for window in windows], axis=-1)
