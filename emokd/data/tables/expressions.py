"""The expression of each example, from class ids or votes."""

import numpy as np
from jaxtyping import Int

from emokd.data.examples import Examples
from emokd.labels import class_ids


def expression_ids(examples: Examples) -> Int[np.ndarray, " N"] | None:
    """The id of each example's expression, UNLABELLED where it has none; None where the set has no expressions."""
    for column in ("expression", "votes"):
        if column in examples.columns:
            return class_ids(examples.columns[column])
    return None
