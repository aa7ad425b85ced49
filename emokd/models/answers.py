"""The specification of a file of answers: the stored outputs of a network that emokd does not have."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from emokd.signals import Signals

HEADS = ("expression", "valence_arousal")


@dataclasses.dataclass(frozen=True)
class AnswersSpec:
    """The columns of a file of answers: features, logits, then valence and arousal, side by side in a row.

    Attributes:
      features: number of features at the start of a row; 0 where the file has none.
      heads: number of logits under "expression", 2 under "valence_arousal"; a head that the file lacks is left out.
      classes: the class names of the logits, under "expression".
      preprocessing: always None, because emokd never runs such a network on a picture.
    """

    features: int
    heads: Mapping[str, int]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    preprocessing: None = None

    @property
    def width(self) -> int:
        """Numbers in a row, W."""
        return self.features + sum(self.heads.values())

    @property
    def feature_size(self) -> int:
        """Width D of the features that `signals` returns."""
        return self.features or self.width

    def signals(self, rows: Float[Array, "B W"]) -> Signals:
        """Splits the rows of a batch into signals. Without features in the file, whole rows are the features. [ours]"""
        rows = rows.astype(jnp.float32)
        outputs, start = {}, self.features
        for name in HEADS:
            if name in self.heads:
                outputs[name] = rows[:, start : start + self.heads[name]]
                start += self.heads[name]
        features = rows[:, : self.features] if self.features else rows
        return Signals(features, outputs.get("expression"), outputs.get("valence_arousal"))
