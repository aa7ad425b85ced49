"""Blocks of examples that a division must keep in one split."""

import dataclasses
from collections import Counter, defaultdict

from absl import logging

from emokd.data.division.duplicates import Duplicates
from emokd.data.division.neighbours import Ties
from emokd.data.examples import Examples

_PART = 20
_LEAST = 4


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The block of each example, as a number: examples of one block go into one split.

    Attributes:
      strict: the blocks of equal examples and groups.
      joined: the blocks when near copies are joined too.
      near: the sets of near copies that are joined.
    """

    strict: list[int]
    joined: list[int]
    near: list[tuple[int, ...]]


def find_blocks(examples: Examples, duplicates: Duplicates, grouped: bool) -> Blocks:
    """Blocks of equal examples, near copies and, where `grouped`, groups.

    Likeness is not transitive: near copies of near copies may chain a whole set together. Sets of near copies that
    would make a block of more than a twentieth of the examples (and of more than four examples, and of more than twice
    the largest group with its copies) are not joined, and the log says so. [ours]
    """
    strict = Ties(len(examples))
    members = defaultdict(list)
    if grouped:
        for i, group in enumerate(examples.require_groups()):
            members[str(group)].append(i)
    for same in (*duplicates.sets, *members.values()):
        strict.tie_all(same)
    roots = strict.roots()
    limit = max(_LEAST, len(examples) // _PART, 2 * max(Counter(roots).values()) if grouped else 0)
    joined, allowed = Ties(roots), Ties(roots)
    for alike in duplicates.near:
        joined.tie_all(alike)
    size = Counter(joined.roots())
    near = [alike for alike in duplicates.near if size[joined.root(alike[0])] <= limit]
    parted = [alike for alike in duplicates.near if size[joined.root(alike[0])] > limit]
    for alike in near:
        allowed.tie_all(alike)
    if parted:
        logging.warning(
            "%s: %d sets of near copies (%d examples) are not kept together: with all that they are tied to they would "
            "be blocks of more than %d examples.",
            *(examples.name, len(parted), sum(map(len, parted)), limit),
        )
    return Blocks(roots, allowed.roots(), near)
