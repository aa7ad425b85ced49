"""The scores of a run: on validation as it goes, and what scores.json holds at its end."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

from emokd.data.examples import Examples
from emokd.data.tables.class_counts import named_counts
from emokd.phase import Tree
from emokd.reporting import predictions as stored
from emokd.reporting import rare_classes
from emokd.training import evaluation
from emokd.training.programs import Programs
from emokd.training.selection import Best
from emokd.training.state import State, weights_for_use
from emokd.training.streams import Streams


class Scorer:
    """Scores the networks of one run on its splits."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        programs: Programs,
        streams: Streams,
        splits: Mapping[str, Examples],
        constants: Tree,
    ):
        """Keeps what all scores need.

        Args:
          config: the run's configuration.
          programs: its programs.
          streams: its batches.
          splits: its examples by split.
          constants: the recipe's, on their shardings.
        """
        self._config, self._programs, self._streams = config, programs, streams
        self._splits, self._constants = splits, constants
        self._validation: dict[int, dict] = {}  # of the best step and of the latest one

    def split(self, split: str, state: State, keep_in: pathlib.Path | None = None) -> dict[str, dict]:
        """The scores of every network on a split, by name.

        Args:
          split: what is scored.
          state: the networks' weights.
          keep_in: the run's folder, where the student's answers are to be kept, see `reporting.predictions`.
        """
        with jax.transfer_guard("allow"):
            predictions, columns = evaluation.collect(
                self._programs.predict,
                *weights_for_use(state),
                self._constants,
                self._streams.evaluation(self._splits[split]),
            )
        classes = self._splits["train"].classes
        if keep_in is not None and jax.process_index() == 0:
            stored.write(keep_in, split, predictions["student"], columns, classes)
        return evaluation.score(predictions, columns, classes)

    def validate(self, state: State, best: Best) -> tuple[dict, float, Best]:
        """Scores a step on validation.

        Returns:
          (the student's scores, that of `config.select.metric`, the best so far, this step included)
        """
        step, scores = int(state.step), self.split("validation", state)
        score = evaluation.selection_score(scores["student"], self._config.select.metric)
        best = best.improved(step, score, self._config.early_stopping.min_delta)
        scores_by_step = {**self._validation, step: scores}
        self._validation = {s: scores_by_step[s] for s in (best.step, step) if s in scores_by_step}
        return scores["student"], score, best

    def final(
        self, split: str, state: State, best: Best, weights: Mapping[str, dict], workdir: pathlib.Path
    ) -> dict[str, Any]:
        """What scores.json holds: the scores of student and teachers, and the weights each teacher received.

        Args:
          split: what is scored.
          state: at the selected step.
          best: of the whole run.
          weights: by phase the teachers' mean weights, as in `TeacherWeights.phases`.
          workdir: the run's folder, where the student's answers are kept.
        """
        config, recipe = self._config, self._programs.recipe
        networks = self.split(split, state, keep_in=workdir)
        remarks = self._remarks({split: networks}, state)
        variants = {name: networks.pop(name) for name in recipe.variants}
        scored = best.step >= 0
        selected_on = None
        if config.select.which == "best" and scored:
            selected_on = "test" if config.data.split.validation_is_test else "validation"
        return {
            "split": split,
            "examples": len(self._splits[split]),
            "selected_step": int(state.step),
            "validation": {"metric": config.select.metric, "best": best.score if scored else None},
            "selected_on": selected_on,
            "stopped_early": {
                phase.name: {"steps": best.stopped[phase.name], "of": phase.steps}
                for phase in recipe.phases
                if phase.name in best.stopped
            },
            "student": networks.pop("student"),
            "teachers": networks,
            "variants": variants,
            "weights": weights,
            "remarks": remarks,
        }

    def _remarks(self, scored: dict[str, dict], state: State) -> list[str]:
        """Remarks on rare classes, on these splits and on validation; logs each of them."""
        if "validation" in self._splits and not self._config.data.split.validation_is_test:
            step = int(state.step)  # scored already, but for a run that continued after its best step
            scored = {"validation": self._validation.get(step) or self.split("validation", state), **scored}
        training, variants = named_counts(self._splits["train"]), self._programs.recipe.variants
        remarks = [
            remark
            for split, scores in scored.items()
            for remark in rare_classes.remarks(
                {name: network_scores for name, network_scores in scores.items() if name not in variants},
                split,
                training,
            )
        ]
        for remark in remarks:
            logging.warning("%s See docs/data.md, Rare classes.", remark)
        return remarks


def flatten(scores: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Nested scores by their path, "prefix/target/name"; only scalars."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            flat[f"{prefix}/{name}"] = float(value)
    return flat
