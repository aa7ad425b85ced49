"""VREED (Tabbaa et al. 2021): eye tracking, ECG and skin conductance in virtual environments, as features."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.arrays import array_examples, read_numbers
from emokd.data.examples import Examples
from emokd.data.pictures import check_options
from emokd.data.tables.table import Row, read_table
from emokd.errors import InputError

TABLES = {
    "eye": "EyeTracking_FeaturesExtracted.csv",
    "ecg": "ECG_FeaturesExtracted.csv",
    "gsr": "GSR_FeaturesExtracted.csv",
}
LABEL = "Quad_Cat"
CLASSES = ("positive_high_arousal", "positive_low_arousal", "negative_low_arousal", "negative_high_arousal")
TRIALS = 12
"""Environments that each person saw."""


def load(directory: str, options: Mapping) -> Examples:
    """Loads the trials: inputs `features/eye` (49), `features/ecg` (18), `features/gsr` (8); classes: the quadrants.

    The tables are aligned row by row and hold no name. Quadrant 0 is positive and aroused, then 1 positive and calm,
    2 negative and calm, 3 negative and aroused: this is how users of the full set read it; the tables do not say so.

    There is **no subject id**: folds over trials are optimistic, as the same person is in training and in test. Where
    the sequence of quadrants repeats itself every 12 rows, as it does in the released tables, each block of 12 rows
    is taken for one person and is a group: each person saw 12 environments, and levels such as the lowest ECG value
    vary between the blocks, not within them. That is inferred, not stated by the data. [ours] Folds over blocks still
    have the environments in common, which decide the class.

    Args:
      directory: holds the three tables.
      options: none.

    Raises:
      InputError: a table is missing or a row is wrong, or the tables are not aligned.
    """
    check_options("vreed", options, ())
    labels: dict[str, list[int]] = {}
    arrays, names = {}, {}
    for name, file in TABLES.items():
        rows = read_table(os.path.join(directory, file), required=(LABEL,))
        labels[name] = [_quadrant(row) for row in rows]
        columns = names[f"features/{name}"] = [column for column in rows[0].cells if column != LABEL]
        arrays[f"features/{name}"] = read_numbers(rows, columns)
        _check_aligned(rows, labels[name], labels["eye"])
    expression = np.array(labels["eye"], np.int32)
    return array_examples(
        "vreed",
        [f"trial{i:03d}" for i in range(len(expression))],
        {"expression": expression},
        {"expression": CLASSES},
        arrays,
        groups=_blocks(expression),
        names=names,
    )


def _quadrant(row: Row) -> int:
    value = row.number(LABEL)
    if value not in range(len(CLASSES)):
        codes = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise row.error(f"there is no quadrant {row.text(LABEL)}", f"The codes are {codes}.")
    return int(value)


def _check_aligned(rows: list[Row], labels: list[int], first: list[int]) -> None:
    if len(labels) != len(first):
        raise InputError(
            f"{rows[0].table} has {len(labels)} rows, but {TABLES['eye']} has {len(first)}. "
            "The tables must be aligned; download them again."
        )
    for row, label, other in zip(rows, labels, first, strict=True):
        if label != other:
            raise row.error(
                f"quadrant {label}, but {other} in the same row of {TABLES['eye']}",
                "The tables must be aligned; download them again.",
            )


def _blocks(expression: np.ndarray) -> list[str] | None:
    """The person of each row, where the quadrants repeat from block to block; None where they do not."""
    if len(expression) % TRIALS or not (expression.reshape(-1, TRIALS) == expression[:TRIALS]).all():
        return None
    return [f"block{i // TRIALS:02d}" for i in range(len(expression))]
