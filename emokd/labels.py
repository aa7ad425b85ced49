"""Which examples have a label, and of which class: one rule for NumPy and JAX arrays."""

from typing import Any

from jaxtyping import Bool, Float, Int, Shaped

UNLABELLED = -1
"""The class id of an example without a label. Any negative id counts as none; valence and arousal use NaN."""

Labels = Int[Any, " N"] | Float[Any, "N C"]
"""Class ids [N], or distributions of votes [N, C]."""


def has_class(labels: Labels) -> Bool[Any, " N"]:
    """Which examples have a class: an id that is not negative, or votes that are not all zero.

    Votes with a NaN count as a class, so that the NaN reaches the loss and is noticed there.

    Examples:
      >>> import numpy as np
      >>> has_class(np.array([3, -1])).tolist(), has_class(np.array([[2.0, 1.0], [0.0, 0.0]])).tolist()
      ([True, False], [True, False])
    """
    return labels >= 0 if labels.ndim == 1 else (labels != 0).any(-1)


def class_ids(labels: Labels) -> Int[Any, " N"]:
    """The class id of each example, UNLABELLED where it has none; of votes the most voted, the lowest id among ties.

    Examples:
      >>> import numpy as np
      >>> class_ids(np.array([[2.0, 5.0], [0.0, 0.0], [1.0, 1.0]])).tolist()
      [1, -1, 0]
    """
    ids = labels if labels.ndim == 1 else labels.argmax(-1)
    return labels.__array_namespace__().where(has_class(labels), ids, UNLABELLED)


def has_value(targets: Float[Any, "..."]) -> Bool[Any, "..."]:
    """Which values of valence, arousal or another measure are labelled: those that are not NaN.

    Examples:
      >>> import numpy as np
      >>> has_value(np.array([0.5, np.nan])).tolist()
      [True, False]
    """
    return ~targets.__array_namespace__().isnan(targets)


def has_any_value(targets: Shaped[Any, "N H"]) -> Bool[Any, " N"]:
    """Which examples have at least one label among the H values, such as valence or arousal.

    Examples:
      >>> import numpy as np
      >>> has_any_value(np.array([[0.5, np.nan], [np.nan, np.nan]])).tolist()
      [True, False]
    """
    return has_value(targets).any(-1)
