"""Stores the features that a run's networks compute for a few fixed examples during training, and draws them.

An observation is `observations/PHASE-STEP.npz` in the run's folder. Its arrays have a row for each example:

    student         the student's features
    teacher/NAME    a teacher's features, as the student learns them; NaN where the example lacks the teacher's modality
    before/NAME     a teacher's features before alignment, if it is aligned
    error/NAME      a teacher's error on the example, if the student may learn from it; NaN where it is unknown

and the targets among TARGETS that the data has; `classes` names the expressions. The pictures are MT-PKDOT's figures
4 and 5: similarities between examples for teacher and student, and the teachers' features in two dimensions.
"""

import dataclasses
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from emokd.errors import InputError
from emokd.files import write_whole, written_whole
from emokd.labels import class_ids, has_class
from emokd.reporting import figures

FOLDER = "observations"
TARGETS = ("expression", "votes", "valence_arousal")
EXAMPLES = 128
"""The largest number of examples that are observed."""

SIMILARITY = "similarity.png"
REPRESENTATIONS = "representations.png"

UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, MemoryError, OverflowError),
    *(SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""Errors that reading a damaged archive of arrays may raise."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """One observation.

    Attributes:
      phase: the name of the phase in which it was made.
      step: the global step.
      arrays: the arrays that the module's docstring lists, without `classes`.
      classes: names of the expressions; empty where there are none.
    """

    phase: str
    step: int
    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...]

    def named(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays `prefix/NAME` by NAME."""
        return {n.removeprefix(f"{prefix}/"): values for n, values in self.arrays.items() if n.startswith(f"{prefix}/")}

    @property
    def labels(self) -> Float[np.ndarray, " N"]:
        """The class of each example (of votes, the majority's) or, without classes, its valence; NaN for neither."""
        if "votes" in self.arrays:
            return _or_nan(class_ids(self.arrays["votes"]))
        if "expression" in self.arrays:
            return _or_nan(class_ids(self.arrays["expression"]))
        return np.asarray(self.arrays["valence_arousal"][:, 0], float)

    @property
    def best_teacher(self) -> str | None:
        """The teacher of least mean error; None where no errors are known."""
        errors = {name: values[np.isfinite(values)] for name, values in self.named("error").items()}
        means = {name: values.mean() for name, values in errors.items() if len(values)}
        return min(means, key=lambda name: means[name]) if means else None


def write(
    workdir: pathlib.Path, phase: str, step: int, arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> pathlib.Path:
    """Stores an observation, whole or not at all, and returns its path; one of the same phase and step is replaced."""
    folder = workdir / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{phase}-{step:08d}.npz"
    stored: dict[str, Any] = {**arrays, "classes": np.array(classes, str)}
    with written_whole(path) as file:
        np.savez(file, **stored)
    return path


def read(workdir: pathlib.Path) -> list[Observation]:
    """The observations of a run in the order of their steps.

    Raises:
      InputError: a file is no observation.
    """
    found = []
    for path in (workdir / FOLDER).glob("*.npz"):
        phase, _, step = path.stem.rpartition("-")
        try:
            with path.open("rb") as file, np.load(file) as stored:
                arrays = {name: stored[name] for name in stored.files}
            found.append(Observation(phase, int(step), arrays, tuple(map(str, arrays.pop("classes")))))
        except UNREADABLE as error:
            raise InputError(f"{path} is no observation of a run ({error}). Remove it.") from error
    return sorted(found, key=lambda observation: (observation.step, observation.phase))


def write_pictures(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Draws the pictures that a run's observations allow, as PNG in its folder, and returns their paths."""
    observations = read(workdir)
    if not observations:
        return []
    drawn = {SIMILARITY: draw_similarity(observations), REPRESENTATIONS: draw_representations(observations[-1])}
    written = []
    for name, picture in drawn.items():
        if picture:
            write_whole(workdir / name, picture)
            written.append(workdir / name)
    return written


def draw_similarity(observations: Sequence[Observation]) -> bytes:
    """Similarity matrices as `similarity_columns` has them, as PNG; empty where there is nothing to draw."""
    columns = similarity_columns(observations)
    return figures.similarity(columns, observations[-1].classes) if columns else b""


def similarity_columns(observations: Sequence[Observation]) -> list[figures.SimilarityColumn]:
    """Similarity matrices of the best teacher and the student at the last phase's first, middle and last observation.

    Examples are in the order of their labels; examples that lack the teacher's modality are left out.
    """
    last = [o for o in observations if o.phase == observations[-1].phase]
    columns = []
    for observation in [last[i] for i in sorted({0, (len(last) - 1) // 2, len(last) - 1})]:
        teacher = observation.best_teacher
        if teacher is None or "student" not in observation.arrays:
            continue
        teacher_features, student_features = observation.arrays[f"teacher/{teacher}"], observation.arrays["student"]
        complete = np.isfinite(teacher_features).all(1) & np.isfinite(student_features).all(1)
        rows = [i for i in by_label(observation.labels) if complete[i]]
        if len(rows) > 1:
            titles = (f"step {observation.step}: teacher {teacher}", "student")
            matrices = (similarities(teacher_features[rows]), similarities(student_features[rows]))
            columns.append(figures.SimilarityColumn(titles, matrices, observation.labels[rows]))
    return columns


def draw_representations(observation: Observation) -> bytes:
    """The panels of `representation_panels` as PNG; empty where there are none."""
    panels = representation_panels(observation)
    return figures.representations(panels, observation.labels, observation.classes) if panels else b""


def representation_panels(observation: Observation) -> list[tuple[str, dict[str, Float[np.ndarray, "N 2"]]]]:
    """The teachers' features before and after alignment, in two dimensions: (title, points by teacher) by space."""
    after, before = observation.named("teacher"), observation.named("before")
    panels = []
    if before:
        # Teachers without alignment, such as the joint features that the others are aligned to, are in both panels.
        panels += [("before alignment", part) for part in _by_width({**after, **before})]
    panels += [("after alignment" if before else "teachers", part) for part in _by_width(after)]
    return [(title, project(part)) for title, part in panels]


def by_label(labels: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Indices that sort examples by label, stably; examples without a label come last."""
    return np.argsort(labels, kind="stable")  # NumPy sorts NaN last


def similarities(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N N"]:
    """The cosine of each pair of rows; 0 where one is all zeros."""
    directions = _directions(features)
    return directions @ directions.T


def project(sets: Mapping[str, Float[np.ndarray, "N D"]]) -> dict[str, Float[np.ndarray, "N 2"]]:
    """The first two principal components of all sets' rows together.

    Rows are scaled to length 1 first, because alignment is by cosines. The sign of a component is such that its largest
    loading is positive. Rows that are not finite become NaN.
    """
    directions = {name: _directions(rows) for name, rows in sets.items()}
    rows = np.concatenate(list(directions.values()))
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        return {name: np.full((len(values), 2), np.nan) for name, values in directions.items()}
    mean = rows.mean(0)
    _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
    axes = np.concatenate([axes[:2], np.zeros((max(2 - len(axes), 0), rows.shape[1]))])
    largest = np.abs(axes).argmax(1)
    axes = axes * np.where(axes[[0, 1], largest] < 0, -1.0, 1.0)[:, None]
    return {name: (values - mean) @ axes.T for name, values in directions.items()}


def _or_nan(ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    return np.where(has_class(ids), ids, np.nan)


def _directions(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths == 0, 1.0, lengths)


def _by_width(sets: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Groups the sets that can be drawn in one space: those of the same number of columns."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, rows in sets.items():
        found.setdefault(rows.shape[1], {})[name] = rows
    return list(found.values())
