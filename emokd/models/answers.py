"""Answers of a network that emokd does not know, in the place of the network."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from emokd.signals import Signals

HEADS = ("expression", "valence_arousal")


@dataclasses.dataclass(frozen=True)
class AnswersSpec:
    """What the rows of a file of answers hold: features, logits, and valence and arousal, side by side in this order.

    Attributes:
      features: how many features a row begins with; 0 where the file has none.
      heads: number of logits under "expression", 2 under "valence_arousal"; what the file lacks is absent.
      classes: the names of the logits, under "expression".
      preprocessing: None: emokd never shows such a teacher a picture.
    """

    features: int
    heads: Mapping[str, int]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    preprocessing: None = None

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.features + sum(self.heads.values())

    @property
    def feature_size(self) -> int:
        """Width of what `signals` calls features."""
        return self.features or self.width

    def signals(self, rows: Float[Array, "B W"]) -> Signals:
        """The signals of a batch. Without features of its own, a teacher's outputs are its features. [ours]"""
        rows = rows.astype(jnp.float32)
        outputs, start = {}, self.features
        for name in HEADS:
            if name in self.heads:
                outputs[name] = rows[:, start : start + self.heads[name]]
                start += self.heads[name]
        features = rows[:, : self.features] if self.features else rows
        return Signals(features, outputs.get("expression"), outputs.get("valence_arousal"))
