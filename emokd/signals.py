"""Signals: the outputs of any network, teacher or student, for a batch."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import jax
from jaxtyping import Array, Float

from emokd.errors import InputError

Output = Literal["features", "logits", "valence_arousal"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Signals:
    """Outputs of a network for a batch of B examples. An output that the network does not have is None, never zeros.

    Attributes:
      features: the pooled representation that the heads read, [B, D].
      logits: unnormalised scores of the C expressions, [B, C].
      valence_arousal: valence and arousal, [B, 2], unclipped.
      intermediates: other named outputs (further heads, heatmaps, feature maps).
    """

    features: Float[Array, "B D"] | None = None
    logits: Float[Array, "B C"] | None = None
    valence_arousal: Float[Array, "B 2"] | None = None
    intermediates: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def require(self, name: Output) -> Float[Array, "B _"]:
        """An output that the caller needs, [B, ...].

        Raises:
          InputError: the network does not give it.
        """
        value = getattr(self, name)
        if value is None:
            given = [other for other in get_args(Output) if getattr(self, other) is not None]
            raise InputError(
                f"A network gives no {name}, which this loss, weighting or prediction needs; of these it gives "
                f"{', '.join(given) or 'none'}. Give it the head, or leave out what needs it."
            )
        return value

    def replace(self, **changes) -> "Signals":
        """Returns a copy with the given fields changed."""
        return dataclasses.replace(self, **changes)
