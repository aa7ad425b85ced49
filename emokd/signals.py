"""Signals: the outputs of any network, teacher or student, for a batch."""

import dataclasses
from collections.abc import Mapping

import jax
from jaxtyping import Array, Float


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

    def replace(self, **changes) -> "Signals":
        """Returns a copy with the given fields changed."""
        return dataclasses.replace(self, **changes)
