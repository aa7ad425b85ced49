"""The student's answers on the split that its scores are of: `WORKDIR/predictions.npz`.

The report draws calibration, the valence-arousal plane and the most confident mistakes from them. Examples are named by
their hashes alone (`Examples.ids` and `Examples.checks`), so that the file names nobody. Its arrays have a row for each
example that could be read:

    id, check               uint32
    probabilities/TARGET    float32 [N, C], and `labels/TARGET` int32 [N], negative where there is none (of votes, the
                            majority's class); `classes/TARGET` names the C classes
    valence_arousal         float32 [N, 2], clipped to the scale, and `labels/valence_arousal`, NaN where there is none

and `split` is the split's name.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from emokd.errors import InputError
from emokd.files import written_whole
from emokd.labels import class_ids, has_class, has_value
from emokd.reporting.observations import UNREADABLE

FILE = "predictions.npz"
AFFECT = "valence_arousal"


@dataclasses.dataclass(frozen=True, eq=False)
class Classified:
    """Answers of one classifying target, of the labelled examples alone.

    Attributes:
      probabilities: rows sum to 1.
      labels: class ids.
      classes: names by id.
      rows: the place of each example among all of the file.
    """

    probabilities: Float[np.ndarray, "N C"]
    labels: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    rows: Int[np.ndarray, " N"]

    @property
    def confidence(self) -> Float[np.ndarray, " N"]:
        """The largest probability of each example."""
        return self.probabilities.max(1)

    @property
    def right(self) -> Bool[np.ndarray, " N"]:
        """Whether the most probable class is the label, the first of equals."""
        return self.probabilities.argmax(1) == self.labels


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What the file holds.

    Attributes:
      split: the split's name.
      ids: a hash of each example's key.
      checks: a second one.
      classified: by target.
      affect: (answers, labels) of valence and arousal, of the examples that have both; None without any.
    """

    split: str
    ids: UInt32[np.ndarray, " N"]
    checks: UInt32[np.ndarray, " N"]
    classified: Mapping[str, Classified]
    affect: tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, "M 2"]] | None


def write(
    workdir: pathlib.Path,
    split: str,
    outputs: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    classes: Mapping[str, tuple[str, ...]],
) -> pathlib.Path:
    """Stores the student's answers, whole or not at all, and returns the path.

    Args:
      workdir: the run's folder.
      split: the split's name.
      outputs: by target, logits [N, C], or valence and arousal [N, 2].
      columns: `id`, `check` and the targets, [N, ...]; a target that is not there is left out.
      classes: names of the classes by target.
    """
    stored: dict[str, Any] = {"split": np.array(split), "id": columns["id"], "check": columns["check"]}
    for target, values in outputs.items():
        votes = columns.get("votes") if target == "expression" else None
        labels = votes if votes is not None else columns.get(target)
        if labels is None:
            continue
        if target == AFFECT:
            stored |= {AFFECT: np.clip(values, -1, 1), f"labels/{AFFECT}": labels}
            continue
        ids = class_ids(labels)
        shifted = np.exp(np.asarray(values, np.float64) - values.max(-1, keepdims=True))
        stored[f"probabilities/{target}"] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
        stored[f"labels/{target}"] = np.where(has_class(ids), ids, -1).astype(np.int32)
        stored[f"classes/{target}"] = np.array(classes[target], str)
    with written_whole(workdir / FILE) as file:
        np.savez_compressed(file, **stored)
    return workdir / FILE


def read(workdir: pathlib.Path) -> Predictions | None:
    """The answers that a run has stored; None where there is no file, as of runs of an older emokd.

    Raises:
      InputError: the file is none.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return _parsed({name: stored[name] for name in stored.files})
    except UNREADABLE as error:
        raise InputError(f"{path} does not hold a run's answers ({error}). Remove it.") from error


def _parsed(arrays: Mapping[str, np.ndarray]) -> Predictions:
    classified = {}
    for name, probabilities in arrays.items():
        if not name.startswith("probabilities/"):
            continue
        target = name.removeprefix("probabilities/")
        labels, classes = arrays[f"labels/{target}"], tuple(map(str, arrays[f"classes/{target}"]))
        if probabilities.shape != (len(arrays["id"]), len(classes)) or labels.shape != (len(arrays["id"]),):
            raise ValueError(f"{target} has the shapes {probabilities.shape} and {labels.shape}")
        if not (np.isfinite(probabilities).all() and (labels < len(classes)).all()):
            raise ValueError(f"{target} holds something else than probabilities and classes")
        rows = np.flatnonzero(labels >= 0)
        if len(rows):
            classified[target] = Classified(probabilities[rows].astype(np.float64), labels[rows], classes, rows)
    affect = None
    if AFFECT in arrays:
        answers, labels = arrays[AFFECT], arrays[f"labels/{AFFECT}"]
        if answers.shape != labels.shape or answers.shape != (len(arrays["id"]), 2):
            raise ValueError(f"{AFFECT} has the shapes {answers.shape} and {labels.shape}")
        both = has_value(labels).all(1) & np.isfinite(answers).all(1)
        affect = (answers[both], labels[both]) if both.any() else None
    return Predictions(str(arrays["split"]), arrays["id"], arrays["check"], classified, affect)
