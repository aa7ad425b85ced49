"""Finds and reports duplicates: examples that are equal or nearly equal, and whether their targets agree."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from absl import logging

from emokd.data.division.likeness import equal_by_chance, find_copies
from emokd.data.division.neighbours import Ties
from emokd.data.examples import Examples
from emokd.errors import excerpt
from emokd.labels import class_ids, has_class, has_value


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Examples that are copies of each other.

    Attributes:
      sets: sets of two or more equal examples, as indices: equal in bytes, in every decoded pixel, or (rows in memory)
        up to rounding.
      conflicting: those of `sets` whose targets differ.
      near: sets of near copies, each with the examples that equal one of them; sets of equal examples only are in
        `sets` alone.
      other_bytes: how many of the examples in `sets` equal another one whose bytes differ.
      chance: sets of equal rows that are no copies, see `likeness.equal_by_chance`; they are in no other field.
    """

    sets: tuple[tuple[int, ...], ...]
    conflicting: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...] = ()
    other_bytes: int = 0
    chance: tuple[tuple[int, ...], ...] = ()


def find_duplicates(examples: Examples, compare: bool = True) -> Duplicates:
    """Finds equal examples, those among them whose targets differ (votes: their majority), and near copies.

    Args:
      examples: the whole set.
      compare: compare pixels and rows too, see `emokd.data.division.likeness`; False: bytes alone.
    """
    by_content = defaultdict(list)
    for i, content in enumerate(examples.contents()):
        by_content[content].append(i)
    alike = find_copies(examples, [same[0] for same in by_content.values()] if compare else [])
    equal, near = Ties(len(examples)), Ties(len(examples))
    for same in (*by_content.values(), *alike.same):
        equal.tie_all(same)
    roots, equal_sets = equal.roots(), equal.sets()
    by_chance = equal_by_chance(examples, equal_sets)
    chance = tuple(same for same, no_copy in zip(equal_sets, by_chance, strict=True) if no_copy)
    sets = tuple(same for same, no_copy in zip(equal_sets, by_chance, strict=True) if not no_copy)
    left = {i for same in chance for i in same}
    for same in (*sets, *([i for i in members if i not in left] for members in alike.near)):
        near.tie_all(same)
    places = {i for same in alike.same for i in same}
    return Duplicates(
        sets,
        tuple(same for same in sets if _conflict(examples, list(same))),
        tuple(same for same in near.sets() if len({roots[i] for i in same}) > 1),
        sum(len(same) for same in sets if places.intersection(same)),
        chance,
    )


def report_duplicates(examples: Examples, duplicates: Duplicates) -> None:
    """Logs the numbers of near copies and of equal examples, and the equal examples whose targets differ."""
    if duplicates.near:
        shown = [" ~ ".join(examples.keys[i] for i in alike[:4]) for alike in duplicates.near]
        logging.warning(
            "%s: %d sets of near copies (%d examples): pictures compressed again, resized, grey or mirrored, or rows "
            "that differ by rounding: %s.",
            *(examples.name, len(shown), sum(map(len, duplicates.near)), excerpt(shown, 3)),
        )
    if duplicates.chance:
        logging.warning(
            "%s: %d sets of equal rows (%d examples) are no copies, as their columns have few different values, which "
            "agree by chance; they are divided like any others.",
            *(examples.name, len(duplicates.chance), sum(map(len, duplicates.chance))),
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
    """Logs which examples equal one of a split or group that must not be trained on, and whether they are kept."""
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
        targets = values[same]
        if name == "votes":
            targets = class_ids(targets)
        targets = targets[has_value(targets).all(axis=1) if targets.dtype.kind == "f" else has_class(targets)]
        if len(targets) and not np.all(targets == targets[0]):
            return True
    return False
