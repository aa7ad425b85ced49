"""The basic CNN, student of SMKD: five plain 3x3 convolutions without branches.

The paper says only that the student is a very basic CNN; depth, widths and input size are [ours].
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.layers import BatchNorm, Conv, conv_norm, global_average_pool
from emokd.models.pooling import max_pool
from emokd.models.preprocessing import Preprocessing
from emokd.models.rematerialization import rematerializable
from emokd.signals import Signals


class BasicCNN(nnx.Module):
    """Five layers of 3x3 convolution, BatchNorm and ReLU, with 2x2 max pooling between them; then the spatial mean.

    At the defaults it has 0.98 million parameters and 157 million multiply-accumulates.

    Args:
      width: channels of the first convolution; later ones double up to 8 times this, which is the feature size.
      size: side of the input, pixels.
      rngs: source of the fresh parameters.

    Raises:
      InputError: `width` is below 1, or `size` below 16.
    """

    def __init__(self, width: int = 32, size: int = 96, *, rngs: nnx.Rngs):
        if width < 1 or size < 16:
            raise InputError(f"basic_cnn needs width >= 1 and size >= 16, not width {width} and size {size}.")
        channels = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.convs = nnx.List([Conv(i, o, 3, rngs=rngs) for i, o in pairs])
        self.norms = nnx.List([BatchNorm(o, rngs=rngs) for _, o in pairs])
        self.feature_size = channels[-1]
        self.preprocessing = Preprocessing(size=size)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Signals:
        """Gives the features of normalised pictures."""
        x = images
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if index:
                x = max_pool(x, 2, 2)
            x = layer(conv, norm, x)
        return Signals(features=global_average_pool(x))


@rematerializable
def layer(conv: Conv, norm: BatchNorm, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
    """One layer of the network."""
    return jax.nn.relu(conv_norm(conv, norm, x))
