"""Examples of equal bytes: which they are, whether their targets agree, and what the log says of them."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from absl import logging

from emokd.data.examples import UNLABELLED, Examples
from emokd.errors import excerpt


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Examples of equal bytes.

    Attributes:
      sets: indices of the examples of each set of two or more.
      conflicting: those of the sets whose targets differ.
    """

    sets: tuple[tuple[int, ...], ...]
    conflicting: tuple[tuple[int, ...], ...]


def find_duplicates(examples: Examples) -> Duplicates:
    """Finds examples of equal bytes, and those among them whose targets differ (votes: their majority)."""
    by_content = defaultdict(list)
    for i, content in enumerate(examples.contents()):
        by_content[content].append(i)
    sets = tuple(tuple(same) for same in by_content.values() if len(same) > 1)
    return Duplicates(sets, tuple(same for same in sets if _conflict(examples, list(same))))


def report_duplicates(examples: Examples, duplicates: Duplicates) -> None:
    """Logs how many there are, and those whose targets differ."""
    if not duplicates.sets:
        return
    logging.warning(
        "%s: %d sets of identical files (%d files); they stay together.",
        examples.name,
        len(duplicates.sets),
        sum(map(len, duplicates.sets)),
    )
    if duplicates.conflicting:
        shown = [" = ".join(examples.keys[i] for i in same) for same in duplicates.conflicting]
        logging.warning("%s: %d of them have different labels: %s.", examples.name, len(shown), excerpt(shown, 3))


def report_leaks(examples: Examples, leaks: Collection[int], whose: str, where: str, kept: bool) -> None:
    """Logs which examples have a duplicate among those that they must not be learned with."""
    logging.warning(
        "%s: %d pictures %s are also, byte for byte, %s; they are %s: %s.",
        examples.name,
        len(leaks),
        whose,
        where,
        "kept" if kept else "left out",
        excerpt([examples.keys[i] for i in sorted(leaks)], 3),
    )


def _conflict(examples: Examples, same: Sequence[int]) -> bool:
    for name, values in examples.columns.items():
        own = values[same]
        if name == "votes":
            own = np.where(own.sum(axis=1) > 0, own.argmax(axis=1), UNLABELLED)
        if own.dtype.kind == "f":
            own = own[np.isfinite(own).all(axis=1)]
        else:
            own = own[own != UNLABELLED]
        if len(own) and not np.all(own == own[0]):
            return True
    return False
