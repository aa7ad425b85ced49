"""Published numbers of examples of data sets, to compare a local copy with."""

from collections.abc import Mapping

import numpy as np

from emokd.data.examples import Examples
from emokd.data.tables.expressions import expression_ids
from emokd.labels import UNLABELLED

WHOLE = "all"
"""Stands for all splits together, where the counts of each are not published or not fixed."""

Counts = Mapping[str, Mapping[str, int]]
"""Examples by split (or `WHOLE`) and class."""


def _row(classes: str, *counts: int) -> dict[str, int]:
    return dict(zip(classes.split(), counts, strict=True))


_FER2013 = "angry disgust fear happy sad surprise neutral"
_RAFDB = "surprise fear disgust happy sad anger neutral"
_MIKELS = "amusement anger awe contentment disgust excitement fear sadness"
_AFFECTNET = "neutral happy sad surprise fear disgust anger contempt"

PUBLISHED: Mapping[str, Counts] = {
    # The challenge's table (Goodfellow et al. 2013): Training, PublicTest, PrivateTest.
    "fer2013": {
        "train": _row(_FER2013, 3995, 436, 4097, 7215, 4830, 3171, 4965),
        "validation": _row(_FER2013, 467, 56, 496, 895, 653, 415, 607),
        "test": _row(_FER2013, 491, 55, 528, 879, 594, 416, 626),
    },
    # The basic set (Li et al. 2017).
    "rafdb": {
        "train": _row(_RAFDB, 1290, 281, 717, 4772, 1982, 705, 2524),
        "test": _row(_RAFDB, 329, 74, 160, 1185, 478, 162, 680),
    },
    # The manually annotated faces with an expression (Mollahosseini et al. 2017, table 3).
    "affectnet": {
        "train": _row(_AFFECTNET, 74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750),
        "test": _row(_AFFECTNET, *[500] * 8),
    },
    # You et al. 2016.
    "fi": {WHOLE: _row(_MIKELS, 4942, 1266, 3151, 5374, 1658, 2963, 1032, 2922)},
    # Peng et al. 2015.
    "emotion6": {WHOLE: _row("anger disgust fear joy sadness surprise", *[330] * 6)},
    # The spoken clips (Livingstone and Russo 2018).
    "ravdess": {WHOLE: _row("neutral calm happy sad angry fearful disgust surprised", 96, *[192] * 7)},
}
"""Published counts by source. Examples that a source's options leave out show up as missing."""

ALSO_CALLED: Mapping[str, Mapping[str, str]] = {"fer2013": {"anger": "angry"}}
"""By source, the published name of each class that another order of its classes calls otherwise."""

TOTALS: Mapping[str, int] = {"oasis": 900, "emoset": 118_102}
"""Totals of sets whose classes are not counted here: Kurdi et al. 2017, Yang et al. 2023."""


def differences(source: str, examples: Examples) -> list[str]:
    """Where the numbers of examples differ from the published ones, one line for each split and class.

    Args:
      source: the set's name. The list is empty for a set without published numbers here.
      examples: the whole set, before it is divided.
    """
    lines = []
    names = [ALSO_CALLED.get(source, {}).get(name, name) for name in examples.classes.get("expression", ())]
    labels = expression_ids(examples)
    for split, counts in PUBLISHED.get(source, {}).items():
        ids = np.full(len(examples), UNLABELLED) if labels is None else labels
        if split != WHOLE:
            if examples.splits is None:
                continue
            ids = ids[examples.splits == split]
        present = dict(zip(names, np.bincount(ids[ids >= 0], minlength=len(names)).tolist(), strict=True))
        lines += [
            f"{split}, {name}: {present.get(name, 0)} examples, {count} are published"
            for name, count in counts.items()
            if present.get(name, 0) != count
        ]
    total = TOTALS.get(source, len(examples))
    if total != len(examples):
        lines.append(f"{len(examples)} examples, {total} are published")
    return lines


def published_total(source: str, name: str) -> int | None:
    """The published number of examples of a class, by any name, over all splits; None where it is not listed here."""
    name = ALSO_CALLED.get(source, {}).get(name, name)
    counts = [split[name] for split in PUBLISHED.get(source, {}).values() if name in split]
    return sum(counts) if counts else None
