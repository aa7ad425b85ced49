"""The class of each example, whichever column has it."""

import numpy as np
from jaxtyping import Int

from emokd.data.examples import UNLABELLED, Examples


def class_ids(examples: Examples) -> Int[np.ndarray, " N"] | None:
    """The id in `classes["expression"]` of each example, or None where the set has no such classes.

    Of votes it is the most voted class; UNLABELLED where an example has none.
    """
    columns = examples.columns
    if "expression" in columns:
        return columns["expression"]
    if "votes" in columns:
        return np.where(columns["votes"].sum(axis=1) > 0, columns["votes"].argmax(axis=1), UNLABELLED)
    return None
