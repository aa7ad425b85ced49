"""Copies: which examples are equal or nearly so, whether their targets agree, and what the log says of them."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from absl import logging

from emokd.data.division.likeness import find_copies
from emokd.data.division.neighbours import Ties
from emokd.data.examples import UNLABELLED, Examples
from emokd.errors import excerpt


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Examples that are copies of each other.

    Attributes:
      sets: indices of the examples of each set of two or more equal ones: in bytes, in every decoded pixel, or, rows in
        memory, up to rounding.
      conflicting: those of the sets whose targets differ.
      near: sets of near copies, each with all that equal one of them; none that are all equal.
      other_bytes: how many of the examples in `sets` have an equal one of other bytes.
    """

    sets: tuple[tuple[int, ...], ...]
    conflicting: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...] = ()
    other_bytes: int = 0


def find_duplicates(examples: Examples, compare: bool = True) -> Duplicates:
    """Finds equal examples, those among them whose targets differ (votes: their majority), and near copies.

    Args:
      examples: the whole set.
      compare: look at pixels and rows, see `emokd.data.division.likeness`; False: at bytes alone.
    """
    by_content = defaultdict(list)
    for i, content in enumerate(examples.contents()):
        by_content[content].append(i)
    alike = find_copies(examples, [same[0] for same in by_content.values()] if compare else [])
    equal, near = Ties(len(examples)), Ties(len(examples))
    for sets, ties in ((by_content.values(), (equal, near)), (alike.same, (equal, near)), (alike.near, (near,))):
        for same in sets:
            for own in ties:
                own.tie_all(same)
    roots = equal.roots()
    sets = tuple(equal.sets())
    places = {i for same in alike.same for i in same}
    return Duplicates(
        sets,
        tuple(same for same in sets if _conflict(examples, list(same))),
        tuple(same for same in near.sets() if len({roots[i] for i in same}) > 1),
        sum(len(same) for same in sets if places.intersection(same)),
    )


def report_duplicates(examples: Examples, duplicates: Duplicates) -> None:
    """Logs how many there are, and those whose targets differ."""
    if duplicates.near:
        shown = [" ~ ".join(examples.keys[i] for i in alike[:4]) for alike in duplicates.near]
        logging.warning(
            "%s: %d sets of near copies (%d examples): pictures compressed again, resized, grey or mirrored, or rows "
            "that differ by rounding: %s.",
            *(examples.name, len(shown), sum(map(len, duplicates.near)), excerpt(shown, 3)),
        )
    if not duplicates.sets:
        return
    logging.warning(
        "%s: %d sets of equal examples (%d examples%s); they stay together.",
        examples.name,
        len(duplicates.sets),
        sum(map(len, duplicates.sets)),
        f", {duplicates.other_bytes} of them in other bytes" if duplicates.other_bytes else "",
    )
    if duplicates.conflicting:
        shown = [" = ".join(examples.keys[i] for i in same) for same in duplicates.conflicting]
        logging.warning("%s: %d of them have different labels: %s.", examples.name, len(shown), excerpt(shown, 3))


def report_leaks(examples: Examples, leaks: Collection[int], whose: str, where: str, kept: bool) -> None:
    """Logs which examples have an equal one among those that they must not be learned with."""
    logging.warning(
        "%s: %d examples %s have equal ones %s; they are %s: %s.",
        examples.name,
        len(leaks),
        whose,
        where,
        "kept (config.data.split.keep_leaks)" if kept else "left out",
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
