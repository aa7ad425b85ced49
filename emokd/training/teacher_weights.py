"""The teachers' mean weights in each phase: `WORKDIR/teacher_weights.json`, which the run's scores repeat."""

import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from emokd.errors import InputError
from emokd.files import write_whole
from emokd.phase import Tree
from emokd.reporting.scoreboard import MISSHAPEN, weight_tables

FILE = "teacher_weights.json"


class TeacherWeights:
    """The mean weight of each teacher in finished phases.

    A checkpoint holds the sums of the present phase alone, so the file keeps the means of earlier ones.

    Attributes:
      phases: by name `mean` {teacher: weight} and `by_class` {class: {teacher: weight}}.
    """

    def __init__(self, workdir: pathlib.Path, teachers: Sequence[str], classes: Sequence[str]):
        """Reads nothing yet.

        Args:
          workdir: the run's folder.
          teachers: the weighting's columns; empty where a run weighs no teachers.
          classes: the expressions.
        """
        self.phases: dict[str, dict] = {}
        self._missed = False
        self._path, self._teachers, self._classes = workdir / FILE, teachers, classes

    def recall(self, phase: str) -> None:
        """Reads the file, for a phase that was finished before this process began; warns where the file is gone."""
        if not self._teachers or phase in self.phases:
            return
        if not self._path.exists() and not self._missed:
            self._missed = True
            logging.warning("%s is gone: the scores will lack the teachers' weights in the phases before.", self._path)
        self.phases |= self._stored()

    def keep(self, phase: str, tally: Tree) -> None:
        """Writes a finished phase's mean weights; to be called before its last checkpoint, or a crash may lose them."""
        if self._teachers:
            self.phases |= self._stored() | mean_weights(phase, jax.device_get(tally), self._teachers, self._classes)
            if jax.process_index() == 0:
                write_whole(self._path, json.dumps(self.phases, indent=2))

    def _stored(self) -> dict[str, dict]:
        if not self._path.exists():
            return {}
        try:
            stored = dict(json.loads(self._path.read_text(encoding="utf-8")))
            weight_tables(stored)  # what the scores repeat is drawn
            return stored
        except (OSError, RecursionError, *MISSHAPEN) as error:
            raise InputError(
                f"{self._path} cannot be read as JSON ({error}). Restore it, or remove it: the run then goes on, and "
                "its scores lack the teachers' weights in the phases before."
            ) from error


def mean_weights(phase: str, tally: Tree, teachers: Sequence[str], classes: Sequence[str]) -> dict[str, dict]:
    """Mean weight of each teacher in a phase, over all examples and by class; empty where none was weighed.

    Args:
      phase: the phase's name.
      tally: as in `State.tally`, on the host.
      teachers: its columns.
      classes: its rows but the last one, which is for examples without a label.
    """
    rows, names = tally["rows"], [*classes, "unlabelled"]
    if not rows.sum():
        return {}
    means = tally["weights"] / np.maximum(rows, 1.0)[:, None]
    total = tally["weights"].sum(0) / rows.sum()

    def by_teacher(row: np.ndarray) -> dict[str, float]:
        return dict(zip(teachers, map(float, row), strict=True))

    by_class = {name: by_teacher(row) for name, row, n in zip(names, means, rows, strict=True) if n}
    return {phase: {"mean": by_teacher(total), "by_class": by_class}}
