"""T-Net of PKDOT and MT-PKDOT: it hallucinates the features of an absent modality from those of a present one."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.models.convolution import widen
from emokd.models.layers import Linear


class TNet(nnx.Module):
    """An encoder and a decoder of linear layers, with a ReLU after each layer but the last.

    The sizes are the authors'. Their release has no activation, which makes the T-Net one linear map of rank 256;
    the ReLU is [ours]. From 512 to 512 features it has 7.6 million parameters.

    Args:
      inputs: size of the present modality's features.
      outputs: size of the hallucinated features.
      rngs: source of the fresh parameters.
      encoder: sizes of the encoder's layers; the last is the bottleneck.
      decoder: sizes of the decoder's layers before the output.

    Raises:
      InputError: a size is below 1, or the encoder has no layer.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
        encoder: Sequence[int] = (2048, 1024, 512, 256),
        decoder: Sequence[int] = (512, 1024, 2048),
    ):
        sizes = [inputs, *encoder, *decoder, outputs]
        if not encoder or min(sizes) < 1:
            raise InputError(f"T-Net needs at least one encoder layer and sizes >= 1, not {sizes}.")
        layers = [
            Linear(i, o, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
            for i, o in zip(sizes[:-1], sizes[1:], strict=True)
        ]
        self.encoder = nnx.List(layers[: len(encoder)])
        self.decoder = nnx.List(layers[len(encoder) :])
        self.feature_size = outputs

    def __call__(self, features: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Gives the hallucinated features; E is `outputs`."""
        x = features
        for layer in self.encoder:
            x = jax.nn.relu(layer(x))
        for layer in self.decoder[:-1]:
            x = jax.nn.relu(layer(x))
        return widen(self.decoder[-1](x))
