"""Which step is the best one, whether a phase has stopped getting better, and where its loss began."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging

from emokd.errors import InputError
from emokd.phase import Recipe


@dataclasses.dataclass(frozen=True)
class Best:
    """The best validation score so far, the counts of early stopping, and where losses began.

    Checkpoints hold it for a resumed run.

    Attributes:
      step: the step that reached the best score; -1: none yet.
      score: that score.
      phase_score: the score of the present phase that the next ones have to beat.
      waited: evaluations since then.
      stopped: the steps after which phases were stopped early, by phase.
      first_losses: the loss of phases' first steps, by phase, see `divergence.growth`.
      grown: remarks on losses that have grown since, by phase.
    """

    step: int = -1
    score: float = float("-inf")
    phase_score: float = float("-inf")
    waited: int = 0
    stopped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first_losses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    grown: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def improved(self, step: int, score: float, min_delta: float = 0.0) -> "Best":
        """Updated by a new score: the higher one is the best, the later one at a tie; early stopping counts it.

        Args:
          step: the step that was scored.
          score: its score; NaN is no improvement.
          min_delta: early stopping counts only a score that exceeds `phase_score` by more than this as an improvement.
        """
        best = dataclasses.replace(self, step=step, score=score) if score >= self.score else self
        if score > self.phase_score + min_delta:
            return dataclasses.replace(best, phase_score=score, waited=0)
        return dataclasses.replace(best, waited=self.waited + 1)

    def begun(self, *, anew: bool = False) -> "Best":
        """At the beginning of a phase: resets the counts of early stopping, and with `anew` forgets the best step."""
        best = dataclasses.replace(self, step=-1, score=float("-inf")) if anew else self
        return dataclasses.replace(best, phase_score=float("-inf"), waited=0)

    def ended(self, phase: str, steps: int) -> "Best":
        """Records that a phase was stopped early, after so many of its steps."""
        return dataclasses.replace(self, stopped={**self.stopped, phase: steps})

    def begins_at(self, phase: str, loss: float) -> "Best":
        """Records the loss of a phase's first step."""
        return dataclasses.replace(self, first_losses={**self.first_losses, phase: loss})

    def remarked(self, phase: str, remark: str) -> "Best":
        """Records a remark on how far the loss of a phase has grown."""
        return dataclasses.replace(self, grown={**self.grown, phase: remark})

    def to_json(self) -> dict[str, Any]:
        """As an object for a JSON file."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Best":
        """The inverse of `to_json`.

        Raises:
          KeyError: an entry is missing.
          TypeError: an entry has another type.
          ValueError: an entry cannot be converted.
        """
        return Best(
            step=int(content["step"]),
            score=float(content["score"]),
            phase_score=float(content["phase_score"]),
            waited=int(content["waited"]),
            stopped={str(phase): int(steps) for phase, steps in content["stopped"].items()},
            # Checkpoints of 0.1.0 lack the following two.
            first_losses={str(phase): float(loss) for phase, loss in content.get("first_losses", {}).items()},
            grown={str(phase): str(remark) for phase, remark in content.get("grown", {}).items()},
        )


def check_early_stopping(recipe: Recipe, config: ml_collections.ConfigDict) -> None:
    """Logs the phases that early stopping leaves alone: those in which the student is not scored.

    Their training loss does not show how well the student does, so they run to their end. [ours]

    Raises:
      InputError: no phase is scored, so that early stopping would do nothing.
    """
    if not config.early_stopping.patience:
        return
    others = [phase.name for phase in recipe.phases if not phase.scored]
    if len(others) == len(recipe.phases):
        raise InputError(
            f"config.early_stopping.patience is {config.early_stopping.patience}, but in no phase of this run "
            f"({', '.join(others)}) is the student scored. Set it to 0."
        )
    if others:
        logging.info("config.early_stopping leaves phases without scores alone: %s.", ", ".join(others))
