"""EmoNet (Toisoul et al., Nature Machine Intelligence 2021): expression, valence and arousal through face alignment.

Two stacked hourglasses predict heatmaps of 68 landmarks, and these weight the features that the emotion part reads.
Written from a description of the network. The authors' weights, licensed CC BY-NC-ND, are not included: users supply
their own copy (`emokd.weights.emonet`).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import BatchNorm, Conv, global_average_pool
from emokd.models.pooling import max_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals

WIDTH = 256
LANDMARKS = 68
HOURGLASSES = 2
DEPTH = 4
FEATURES = 128


class Shortcut(nnx.Module):
    """BatchNorm, ReLU and a 1x1 convolution: the shortcut of a block that changes the number of channels."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(inputs, rngs=rngs)
        self.conv = Conv(inputs, outputs, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        return self.conv(jax.nn.relu(self.norm(x)))


class Block(nnx.Module):
    """Three 3x3 convolutions in sequence, each after BatchNorm and ReLU; their concatenation plus the shortcut."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        widths = (inputs, outputs // 2, outputs // 4, outputs // 4)
        self.norms = nnx.List([BatchNorm(width, rngs=rngs) for width in widths[:-1]])
        self.convs = nnx.List([Conv(i, o, rngs=rngs) for i, o in zip(widths[:-1], widths[1:], strict=True)])
        self.shortcut = Shortcut(inputs, outputs, rngs=rngs) if inputs != outputs else None

    @rematerializable
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        residual = x if self.shortcut is None else self.shortcut(x)
        outputs = []
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(jax.nn.relu(norm(x)))
            outputs.append(x)
        return jnp.concatenate(outputs, axis=-1) + residual


class Stem(nnx.Module):
    """Maps pictures [B, H, W, 3] to low-level features [B, H / 4, W / 4, 256]."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = Conv(3, 64, 7, 2, use_bias=True, rngs=rngs)
        self.norm = BatchNorm(64, rngs=rngs)
        self.blocks = nnx.List([Block(i, o, rngs=rngs) for i, o in ((64, 128), (128, 128), (128, WIDTH))])

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B H2 W2 D"]:
        x = jax.nn.relu(self.norm(self.conv(x)))
        x = halve(self.blocks[0](x))
        return self.blocks[2](self.blocks[1](x))


class Level(nnx.Module):
    """The blocks of one resolution of an hourglass: on the skip connection, before and after the lower resolutions."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.skip, self.before, self.after = (Block(WIDTH, WIDTH, rngs=rngs) for _ in range(3))


class Hourglass(nnx.Module):
    """Downsamples the maps four times by 2 and upsamples them again, adding the skip connection at each resolution."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.levels = nnx.List([Level(rngs=rngs) for _ in range(DEPTH)])
        self.bottom = Block(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        skips = []
        for level in self.levels:
            skips.append(level.skip(x))
            x = level.before(halve(x))
        x = self.bottom(x)
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            x = skip + double(level.after(x))
        return x


class Aligner(nnx.Module):
    """An hourglass, the features and landmark heatmaps computed from its output, and the input of the next hourglass.

    Args:
      last: whether no hourglass follows; then the input is passed on unchanged.
      rngs: source of the fresh parameters.
    """

    def __init__(self, last: bool, *, rngs: nnx.Rngs):
        self.hourglass = Hourglass(rngs=rngs)
        self.top = Block(WIDTH, WIDTH, rngs=rngs)
        self.conv = Conv(WIDTH, WIDTH, 1, use_bias=True, rngs=rngs)
        self.norm = BatchNorm(WIDTH, rngs=rngs)
        self.heatmaps = Conv(WIDTH, LANDMARKS, 1, use_bias=True, rngs=rngs)
        self.feed_features = None if last else Conv(WIDTH, WIDTH, 1, use_bias=True, rngs=rngs)
        self.feed_heatmaps = None if last else Conv(LANDMARKS, WIDTH, 1, use_bias=True, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B H W D"]
    ) -> tuple[Float[Array, "B H W D"], Float[Array, "B H W D"], Float[Array, "B H W 68"]]:
        """Gives the next hourglass's input, the features and the heatmaps."""
        features = jax.nn.relu(self.norm(self.conv(self.top(self.hourglass(x)))))
        heatmaps = self.heatmaps(features)
        if self.feed_features is None or self.feed_heatmaps is None:
            return x, features, heatmaps
        features = self.feed_features(features)
        return x + features + self.feed_heatmaps(heatmaps), features, heatmaps


class Emotion(nnx.Module):
    """The emotion part: from maps [B, H, W, 768] to features [B, 128]."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.reduce = Conv((1 + HOURGLASSES) * WIDTH, WIDTH, 1, use_bias=True, rngs=rngs)
        self.blocks = nnx.List([Block(WIDTH, WIDTH, rngs=rngs) for _ in range(4)])
        self.linear = nnx.Linear(WIDTH, FEATURES, rngs=rngs)
        self.norm = BatchNorm(FEATURES, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        x = self.reduce(x)
        for block in self.blocks:
            x = halve(block(x))
        return jax.nn.relu(self.norm(self.linear(global_average_pool(x))))


class EmoNet(nnx.Module):
    """The backbone: RGB in [0, 1], 256 x 256, to features [B, 128]. The original's last layer is a linear head on them.

    Intermediates are the last hourglass's `heatmaps` [B, H / 4, W / 4, 68] and their sum, `attention`
    [B, H / 4, W / 4, 1]. Other sizes work where both sides are multiples of 64: the original's average over 4 x 4
    positions becomes an average over all positions. [ours]

    The order of the 768 channels is low-level features, first hourglass, second hourglass. [ours]
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = Stem(rngs=rngs)
        self.aligners = nnx.List([Aligner(i == HOURGLASSES - 1, rngs=rngs) for i in range(HOURGLASSES)])
        self.emotion = Emotion(rngs=rngs)
        self.feature_size = FEATURES
        self.preprocessing = Preprocessing(size=256, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives features and intermediates of pictures.

        Raises:
          InputError: a side is no multiple of 64, or there are not 3 channels.
        """
        _, height, width, channels = images.shape
        if height % 64 or width % 64 or channels != 3:
            raise InputError(
                f"EmoNet takes RGB pictures whose sides are multiples of 64 (256 in its authors' files), "
                f"not {height} x {width} with {channels} channels."
            )
        low_level = self.stem(images)
        x, stages = low_level, []
        for aligner in self.aligners:
            x, features, heatmaps = aligner(x)
            stages.append(features)
        attention = heatmaps.sum(-1, keepdims=True)
        maps = jnp.concatenate([low_level, *(features * attention for features in stages)], axis=-1)
        return Signals(features=self.emotion(maps), intermediates={"heatmaps": heatmaps, "attention": attention})


def halve(maps: Float[Array, "B H W D"]) -> Float[Array, "B H2 W2 D"]:
    """Maximum over windows of 2 x 2."""
    return max_pool(maps, 2, 2)


def double(maps: Float[Array, "B H W D"]) -> Float[Array, "B H2 W2 D"]:
    """Repeats every position 2 x 2 times (nearest neighbour)."""
    batch, height, width, channels = maps.shape
    spread = jnp.broadcast_to(maps[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return spread.reshape(batch, 2 * height, 2 * width, channels)
