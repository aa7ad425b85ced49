"""Counts the examples of each class."""

import numpy as np

from emokd.data.examples import Examples
from emokd.labels import has_class


def class_counts(examples: Examples, column: str = "expression") -> tuple[float, ...]:
    """The number of examples of each class of a classifying column, in order of the ids; votes count as fractions.

    Zeros where the column has class names and no values.
    """
    classes = examples.classes.get(column, ())
    if column == "expression" and "votes" in examples.columns:
        return tuple(map(float, examples.columns["votes"].sum(0, dtype=np.float64)))
    labels = examples.columns.get(column, np.empty(0, np.int32))
    return tuple(map(float, np.bincount(labels[has_class(labels)], minlength=len(classes))))


def named_counts(examples: Examples) -> dict[str, dict[str, float]]:
    """The number of examples of each class, by classifying column and class name."""
    return {
        column: dict(zip(names, class_counts(examples, column), strict=True))
        for column, names in examples.classes.items()
    }
