"""Logs groups and near copies that straddle splits, and classes that a split lacks."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.division.strata import find_strata
from emokd.data.examples import Examples
from emokd.errors import excerpt


def report_crossings(examples: Examples, parts: Mapping[str, np.ndarray], near: Sequence[Sequence[int]]) -> None:
    """Logs groups and near copies that have examples in several splits, and classes that a split lacks.

    Args:
      examples: the whole set.
      parts: indices of each split's examples; disjoint.
      near: sets of near copies.
    """
    home = {int(i): name for name, part in parts.items() for i in part}
    if examples.groups is not None:
        members = groups_of(examples)
        _report(examples, home, members, "groups (subjects, or what else their column names)", len(members))
    _report(examples, home, {examples.keys[indices[0]]: indices for indices in near}, "sets of near copies", len(near))
    _report_classes(examples, parts)


def groups_of(examples: Examples) -> dict[str, list[int]]:
    """The indices of each group's examples; empty without groups."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(() if examples.groups is None else examples.groups):
        members[str(group)].append(i)
    return dict(members)


def crossing(members: Mapping[str, Sequence[int]], home: Mapping[int, str]) -> dict[str, list[str]]:
    """The names of the sets that have examples in several splits, with these splits.

    Args:
      members: indices of each set's examples, by the set's name.
      home: the split of each index; examples in no split are absent.
    """
    where = {name: sorted({home[i] for i in indices if i in home}) for name, indices in members.items()}
    return {name: splits for name, splits in where.items() if len(splits) > 1}


def _report(
    examples: Examples, home: Mapping[int, str], members: Mapping[str, Sequence[int]], what: str, total: int
) -> None:
    """Logs which sets have examples in several splits."""
    crossed = crossing(members, home)
    if not crossed:
        return
    counts = Counter(" and ".join(splits) for splits in crossed.values())
    logging.warning(
        "%s: %d of %d %s are in several splits (%s): %s. Scores then also tell what was learned by heart.",
        *(examples.name, len(crossed), total, what),
        ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())),
        excerpt(crossed, 3),
    )


def _report_classes(examples: Examples, parts: Mapping[str, np.ndarray]) -> None:
    """Logs the classes that a split lacks, and those that one split alone has."""
    if "expression" not in examples.classes:
        return
    strata, names = find_strata(examples)
    counts = {split: np.bincount(strata[part], minlength=len(names)) for split, part in parts.items()}
    for stratum, name in enumerate(names[:-1]):
        having = [split for split, count in counts.items() if count[stratum]]
        lacking = [split for split, count in counts.items() if not count[stratum]]
        if not having or not lacking:
            continue
        alone = f"{having[0]} alone has" if len(having) == 1 else f"{' and '.join(lacking)} lacks"
        logging.warning(
            "%s: %s examples of %s (%s)%s.",
            *(examples.name, alone, name),
            ", ".join(f"{split}: {count[stratum]}" for split, count in counts.items()),
            ", so it cannot be learned" if "train" in lacking else "",
        )
