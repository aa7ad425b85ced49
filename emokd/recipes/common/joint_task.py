"""The losses of expressions, valence and arousal as one task, of which the data may have either part."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.losses import affect
from emokd.phase import Batch, Measure, Term
from emokd.recipes.common.classification import CrossEntropy, create_cross_entropy
from emokd.recipes.common.task import Task, accuracy, choose, joint_heads, targets
from emokd.signals import Output, Signals


@dataclasses.dataclass(frozen=True, eq=False)
class JointTask:
    """The losses of a run whose networks all predict the same targets.

    Attributes:
      heads: the size of each head that the data has a target for.
      cross_entropy: the loss of expressions.
      affect_loss: the loss of valence and arousal.
    """

    heads: Mapping[str, int]
    cross_entropy: CrossEntropy
    affect_loss: Callable[..., Float[Array, " B"]]

    def terms(
        self, name: str, signals: Signals, batch: Batch, rows: Bool[Array, " B"], share: float = 1.0
    ) -> dict[str, Term]:
        """The losses of a network's outputs, over the labelled ones of the rows; `share` is their coefficient."""
        terms = {}
        if "expression" in self.heads:
            labels, labelled = targets(batch)
            values = self.cross_entropy(signals.require("logits"), labels)
            terms[f"{name}/expression"] = Term(values, rows & labelled, share)
        if "valence_arousal" in self.heads:
            target, labelled = targets(batch, "valence_arousal")
            labelled = rows & labelled
            values = self.affect_loss(signals.require("valence_arousal"), target, mask=labelled)
            terms[f"{name}/valence_arousal"] = Term(values, labelled, share)
        return terms

    def accuracy(self, name: str, signals: Signals, batch: Batch) -> dict[str, Array | Measure]:
        """A network's accuracy in expressions, for the log; empty where it does not predict them."""
        if signals.logits is None:
            return {}
        return {f"accuracy/{name}": accuracy(signals.logits, *targets(batch))}

    def evidence(
        self, answers: Sequence[Signals], available: Sequence[Bool[Array, " B"]], batch: Batch
    ) -> dict[str, Array]:
        """The weighting's evidence: logits [B, K, C] and labels; without expressions, squared errors [B, K].

        Args:
          answers: each teacher's signals.
          available: for each teacher the rows that have its modality. On other rows its logits are 0, all classes
            alike, or its valence and arousal are 0, the middle of the scale.
          batch: the labels.
        """

        def stacked(name: Output) -> Float[Array, "B K C"]:
            values = (
                jnp.where(rows[:, None], a.require(name), 0.0) for a, rows in zip(answers, available, strict=True)
            )
            return jnp.stack(list(values), axis=1)

        if "expression" in self.heads:
            return {"teacher_logits": stacked("logits"), "labels": targets(batch)[0]}
        return {"errors": ((stacked("valence_arousal") - batch["valence_arousal"][:, None]) ** 2).sum(-1)}

    def error(self, answer: Signals, batch: Batch, rows: Bool[Array, " B"]) -> Float[Array, " B"]:
        """The error by which the most confident teacher is chosen: cross-entropy, or the squared error of affect.

        NaN except on the labelled ones of the rows.
        """
        if "expression" in self.heads:
            labels, labelled = targets(batch)
            return jnp.where(rows & labelled, affect.cross_entropy(answer.require("logits"), labels), jnp.nan)
        errors = ((answer.require("valence_arousal") - batch["valence_arousal"]) ** 2).sum(-1)
        return jnp.where(rows, errors, jnp.nan)


def create_joint_task(config: ml_collections.ConfigDict, task: Task) -> JointTask:
    """The losses that the configuration says, for what the data has.

    Raises:
      InputError: the data has neither expressions nor valence and arousal, or an option is unknown.
    """
    affect_loss = choose(affect.AFFECT_LOSSES, config.affect_loss, "config.affect_loss")
    return JointTask(joint_heads(task), create_cross_entropy(config, task), affect_loss)
