"""A small convolutional encoder of raw traces, such as physiological signals. [ours]"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import ConvNorm, global_average_pool
from emokd.signals import Signals

KERNEL = 7
GROWTH = 8


class Conv1d(nnx.Module):
    """Convolutions of 7 samples with stride 2, BatchNorm and ReLU; then the mean over time.

    At the defaults it has 0.77 million parameters on three channels, and a receptive field of 187 samples.

    Args:
      shape: of one example, [samples, channels].
      width: channels of the first convolution; later ones double up to 8 times this.
      depth: number of convolutions; each halves the length, rounding up.
      rngs: source of the fresh parameters.

    Raises:
      InputError: `shape` is not of two positive numbers, or `width` or `depth` is below 1.
    """

    def __init__(self, shape: Sequence[int], width: int = 32, depth: int = 5, *, rngs: nnx.Rngs):
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(f"conv1d takes inputs of shape [samples, channels], not {list(shape)}.")
        if width < 1 or depth < 1:
            raise InputError(f"conv1d needs width >= 1 and depth >= 1, not width {width} and depth {depth}.")
        channels = [shape[1], *(width * min(2**layer, GROWTH) for layer in range(depth))]
        self.layers = nnx.List(
            [
                ConvNorm(i, o, (KERNEL,), (2,), activation=jax.nn.relu, rngs=rngs)
                for i, o in zip(channels[:-1], channels[1:], strict=True)
            ]
        )
        self.feature_size = channels[-1]

    def __call__(self, traces: Float[Array, "B T C"]) -> Signals:
        """Gives the features of normalised traces."""
        x = traces
        for layer in self.layers:
            x = layer(x)
        return Signals(features=global_average_pool(x))
