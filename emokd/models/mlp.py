"""A multi-layer perceptron on precomputed features. [ours]"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from emokd.errors import InputError, nearest
from emokd.models.convolution import widen
from emokd.models.layers import BatchNorm, LayerNorm, Linear
from emokd.signals import Signals

NORMS = {"layer": LayerNorm, "batch": BatchNorm}


class MLP(nnx.Module):
    """Layers of linear map, normalisation and ReLU, one for each of `widths`.

    Args:
      shape: of one example, [columns].
      widths: size of each layer; the last is the feature size.
      norm: "layer" or "batch".
      rngs: source of the fresh parameters.

    Raises:
      InputError: `shape` or `widths` is not made of positive numbers as above, or `norm` is unknown.
    """

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int] = (256, 128), norm: str = "layer", *, rngs: nnx.Rngs
    ):
        if len(shape) != 1 or shape[0] < 1:
            raise InputError(f"mlp takes inputs of shape [columns], not {list(shape)}.")
        if not widths or min(widths) < 1:
            raise InputError(f"mlp needs widths of at least one layer, each >= 1, not {list(widths)}.")
        if norm not in NORMS:
            raise InputError(f"mlp has no norm {norm!r}.{nearest(norm, NORMS)} Known: {', '.join(NORMS)}.")
        sizes = [*shape, *widths]
        self.layers = nnx.List(
            [
                Linear(i, o, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
                for i, o in zip(sizes[:-1], sizes[1:], strict=True)
            ]
        )
        self.norms = nnx.List([NORMS[norm](size, rngs=rngs) for size in widths])
        self.feature_size = sizes[-1]

    def __call__(self, table: Float[Array, "B D"]) -> Signals:
        """Gives the features of normalised rows."""
        x = table
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x)))
        return Signals(features=widen(x))
