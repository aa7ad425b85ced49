"""How many labels a run may use: some of the training examples keep theirs, the others are unlabelled to it."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from absl import logging
from jaxtyping import Bool, Int

from emokd.data.division.strata import find_strata
from emokd.data.examples import Examples, stable_hash
from emokd.errors import InputError
from emokd.labels import has_any_value, has_class

_NEXT = 8
"""Of so many groups, in the order of the hash, the one is taken that keeps the strata best in proportion. [ours]"""


def limit_labels(
    examples: Examples, limit: float, seed: int, by_group: bool = True
) -> tuple[Examples, Examples | None]:
    """Divides the training split into examples whose labels may be used, and the others, as they are.

    Strata (see `strata.find_strata`) keep their proportions. What a smaller limit takes is part of what a larger one
    takes with the same seed. Groups go together, so that a limit is met as nearly as whole groups allow. [ours]

    Args:
      examples: the training split.
      limit: 0 for all of them; below 1 the share of the labelled examples, from 1 on how many.
      seed: another seed takes others.
      by_group: keep each of `examples.groups` together, where there are groups.

    Returns:
      The labelled examples, and the rest, in their order; None where nothing is left.

    Raises:
      InputError: the limit is more than there are, or no whole number.
    """
    if not limit:
        return examples, None
    labelled = np.flatnonzero(_has_label(examples))
    count = max(round(limit * len(labelled)), 1) if limit < 1 else int(limit)
    if limit >= 1 and (limit != count or count > len(labelled)):
        raise InputError(
            f"config.data.labels.limit is {limit:g}, but the training split of {examples.name} has {len(labelled)} "
            "labelled examples. Give a whole number of no more, a share below 1, or 0 for all of them."
        )
    strata, names = find_strata(examples)
    if by_group and examples.groups is not None:
        taken = _whole_groups(examples.groups, labelled, strata, count, seed)
    else:
        taken = _in_proportion(examples.keys, labelled, strata, count, seed)
    rest = np.setdiff1d(np.arange(len(examples)), taken)
    present = np.bincount(strata[labelled], minlength=len(names))
    kept = np.bincount(strata[taken], minlength=len(names))
    shares = ", ".join(f"{name} {k} of {n}" for name, k, n in zip(names, kept, present, strict=True) if n)
    logging.info(
        "%s: config.data.labels.limit: labels of %d of %d training examples are used (%s); %d examples are unlabelled.",
        *(examples.name, len(taken), len(labelled), shares, len(rest)),
    )
    if by_group and examples.groups is not None and len(taken) != count:
        logging.warning(
            "%s: %d labels are used, not the %d of config.data.labels.limit, as groups (subjects) stay whole. Set "
            "config.data.split.by_group to False for the exact number.",
            *(examples.name, len(taken), count),
        )
    return examples.select(np.sort(taken)), examples.select(rest) if len(rest) else None


def _has_label(examples: Examples) -> Bool[np.ndarray, " N"]:
    """Which examples have a label in any column."""
    labelled = np.zeros(len(examples), bool)
    for name, values in examples.columns.items():
        classified = name == "votes" or name in examples.classes
        labelled |= has_class(values) if classified else has_any_value(values.reshape(len(values), -1))
    return labelled


def _in_proportion(
    keys: Sequence[str], labelled: Int[np.ndarray, " L"], strata: Int[np.ndarray, " N"], count: int, seed: int
) -> Int[np.ndarray, " T"]:
    """The first of all, where the r-th of n of a stratum, by hash, stands at (r + 1/2) / n."""
    members = defaultdict(list)
    for i in labelled.tolist():
        members[int(strata[i])].append((stable_hash(keys[i], f"{seed}/labels"), keys[i], i))
    queue = [
        ((rank + 0.5) / len(stratum), entry)
        for stratum in members.values()
        for rank, entry in enumerate(sorted(stratum))
    ]
    return np.array([i for _, (_, _, i) in sorted(queue)[:count]], np.int64)


def _whole_groups(
    groups: np.ndarray, labelled: Int[np.ndarray, " L"], strata: Int[np.ndarray, " N"], count: int, seed: int
) -> Int[np.ndarray, " T"]:
    """The labelled examples of the first groups, as many groups as come nearest to the count; one at least."""
    members = defaultdict(list)
    for i in labelled.tolist():
        members[str(groups[i])].append(i)
    waiting = sorted(members, key=lambda group: (stable_hash(group, f"{seed}/labels"), group))
    width = int(strata.max()) + 1
    histograms = {group: np.bincount(strata[indices], minlength=width) for group, indices in members.items()}
    proportions = np.bincount(strata[labelled], minlength=width) / len(labelled)
    taken: list[int] = []
    sums = np.zeros(width)

    def imbalance(group: str) -> float:
        after = sums + histograms[group]
        return float(((after - proportions * after.sum()) ** 2).sum())

    while waiting:
        group = min(waiting[:_NEXT], key=imbalance)
        indices = members[group]
        if taken and abs(len(taken) + len(indices) - count) >= abs(len(taken) - count):
            break
        waiting.remove(group)
        taken += indices
        sums += histograms[group]
    return np.array(taken, np.int64)
