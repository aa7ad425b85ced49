"""Strata: the classes, or thirds of valence, whose proportions a division keeps."""

import numpy as np

from emokd.data.examples import Examples
from emokd.data.tables.expressions import expression_ids
from emokd.labels import UNLABELLED, has_value


def find_strata(examples: Examples) -> tuple[np.ndarray, list[str]]:
    """The stratum of each example, int64 [N], and the strata's names for messages; the last one is "unlabelled"."""
    columns = examples.columns
    labels = expression_ids(examples)
    if labels is not None:
        names = [f"class {name!r}" for name in examples.classes["expression"]]
    elif "valence_arousal" in columns:
        valence = columns["valence_arousal"][:, 0]
        labelled = valence[has_value(valence)]
        thresholds = np.quantile(labelled, [1 / 3, 2 / 3]) if len(labelled) else np.zeros(2)
        labels = np.where(has_value(valence), np.searchsorted(thresholds, valence), UNLABELLED)
        names = [f"the {part} third of valence" for part in ("lower", "middle", "upper")]
    else:
        labels, names = np.zeros(len(examples), np.int64), ["the set"]
    labels = np.asarray(labels, np.int64)
    return np.where(labels == UNLABELLED, len(names), labels), [*names, "unlabelled"]
