"""Separable convolution with a bias, as TensorFlow computes it."""

from flax import nnx
from jaxtyping import Array, Float

from emokd.models.layers import Conv


class SeparableConv(nnx.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 across channels with a bias; padding is "SAME".

    Args:
      inputs: channels in.
      outputs: channels out.
      strides: of the 3x3.
      rngs: source of the fresh parameters.
    """

    def __init__(self, inputs: int, outputs: int, strides: int = 1, *, rngs: nnx.Rngs):
        self.depthwise = Conv(inputs, inputs, 3, strides, padding="SAME", groups=inputs, rngs=rngs)
        self.pointwise = Conv(inputs, outputs, 1, use_bias=True, rngs=rngs)

    def __call__(self, maps: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        return self.pointwise(self.depthwise(maps))
