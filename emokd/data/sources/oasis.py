"""OASIS (Kurdi et al. 2017): 900 photographs rated for valence and arousal from 1 to 7."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emokd.data.described import constant, described
from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.options import choice
from emokd.data.pictures import check_options, find_pictures, picture_examples
from emokd.data.tables.classes import VALENCE_TERCILES
from emokd.data.tables.table import Row, read_table
from emokd.data.tables.targets import read_affect, read_labels
from emokd.errors import InputError
from emokd.labels import UNLABELLED

TABLE = "labels.csv"
TASKS = ("valence_arousal", "terciles")
CATEGORIES = ("animal", "object", "person", "scenery")


def load(directory: str, options: Mapping) -> Examples:
    """Loads OASIS: column `valence_arousal`, mean ratings mapped from [1, 7] to [-1, 1] by (x - 4) / 3.

    The theme's category (animal, object, person, scenery) is a further task, `category`, where the table has it.

    Args:
      directory: holds `labels.csv` with path, valence_mean, arousal_mean (and category), and the pictures.
      options: `task`: `valence_arousal` (default), or `terciles`: `finish` then adds three classes of
        valence, since the thresholds may only be fitted on training examples; `min_side`.

    Raises:
      InputError: the table or a picture is missing, a row is wrong, or the task is unknown.
    """
    _check_options(options)
    rows = read_table(os.path.join(directory, TABLE), required=("path", "valence_mean", "arousal_mean"))
    files = open_files(directory)
    names = find_pictures(files, rows)
    ratings = read_affect(rows, ("valence_mean", "arousal_mean"), 1, 7)
    columns = {"valence_arousal": ((ratings - 4) / 3).astype(np.float32)}
    classes: dict[str, tuple[str, ...]] = {}
    if "category" in rows[0].cells:
        columns["category"], classes["category"] = read_labels("oasis", _lower(rows), None, "category")
    return picture_examples("oasis", files, names, columns, classes, options)


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of `load` and `finish`, of the published table, which has categories."""
    classes: dict[str, tuple[str, ...]] = {"category": CATEGORIES}
    if _check_options(options) == "terciles":
        classes["expression"] = VALENCE_TERCILES
    pictures = {"image": constant((1, 1, 3), np.uint8)}
    return described("oasis", rows, classes, pictures, valence_arousal=True)


def _check_options(options: Mapping) -> str:
    """The task that they name."""
    check_options("oasis", options, ("task",))
    return choice("task", options.get("task") or TASKS[0], TASKS)


def _lower(rows: Sequence[Row]) -> list[Row]:
    """The rows with their category in lower case."""
    return [Row(row.table, row.line, {"category": row.cells["category"].lower()}) for row in rows]


def finish(splits: Mapping[str, Examples], options: Mapping) -> dict[str, Examples]:
    """Adds the terciles of valence where `options.task` asks for them, see `with_terciles`."""
    return with_terciles(splits) if options.get("task") == "terciles" else dict(splits)


def terciles(values: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """The two thresholds that cut values into thirds; NaN (unlabelled) is ignored.

    Raises:
      InputError: the values are too few or too equal to be cut in three.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = np.quantile(finite, [1 / 3, 2 / 3]) if len(finite) >= 3 else (0.0, 0.0)
    if not (len(finite) >= 3 and finite.min() <= low < high < finite.max()):
        raise InputError(f"{len(finite)} values of valence cannot be cut in three: too few, or too many equal ones.")
    return float(low), float(high)


def with_terciles(splits: Mapping[str, Examples]) -> dict[str, Examples]:
    """Adds the column `expression`: negative, neutral or positive valence, by the thirds of the *training* split.

    Values equal to a threshold belong to the class below it. [ours]

    Raises:
      InputError: there is no training split, no valence, or it cannot be cut in three.
    """
    if "train" not in splits or "valence_arousal" not in splits["train"].columns:
        raise InputError(
            "Terciles of valence need a training split with valence. Check config.data.source and config.data.split."
        )
    thresholds = terciles(splits["train"].columns["valence_arousal"][:, 0])

    def label(examples: Examples) -> Examples:
        valence = examples.columns["valence_arousal"][:, 0]
        ids = np.where(np.isfinite(valence), np.searchsorted(thresholds, valence), UNLABELLED).astype(np.int32)
        return dataclasses.replace(
            examples,
            columns={**examples.columns, "expression": ids},
            classes={**examples.classes, "expression": VALENCE_TERCILES},
        )

    return {name: label(examples) for name, examples in splits.items()}
