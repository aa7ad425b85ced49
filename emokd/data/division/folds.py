"""Folds: the subjects in order, the check of the configuration's fold, and leaving one subject out."""

import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from emokd.data.division.duplicates import Duplicates, report_leaks
from emokd.data.examples import Examples
from emokd.errors import InputError


def sort_groups(groups: Sequence[str] | np.ndarray) -> list[str]:
    """The distinct names of groups, sorted; numbers in them count as numbers: s2 comes before s10."""

    def key(name: str):
        return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name

    return sorted({str(group) for group in groups}, key=key)


def check_folds(
    examples: Examples, folds: int, fold: int, leave_one_group_out: bool, prescribed: bool, grouped: bool
) -> None:
    """Checks the fold that a configuration asks for, if it asks for one.

    Args:
      examples: the whole set.
      folds: `config.data.split.folds`.
      fold: `config.data.split.fold`.
      leave_one_group_out: `config.data.split.leave_one_group_out`.
      prescribed: whether the set's own splits are used.
      grouped: whether groups are kept together.

    Raises:
      InputError: there is no such fold, or there can be no folds.
    """
    if not folds and not leave_one_group_out:
        return
    if folds and leave_one_group_out:
        raise InputError(
            f"config.data.split.leave_one_group_out makes every group a fold, but there are also folds={folds}. "
            "Set one of the two."
        )
    if prescribed:
        raise InputError(
            f"{examples.name} prescribes its own splits, so it has no folds. Set config.data.split.folds to 0 and "
            "leave_one_group_out to False, or config.data.split.use_prescribed to False to fold over all of it."
        )
    if leave_one_group_out and examples.groups is None:
        raise InputError(
            f"{examples.name} does not say which subject (group) its examples are of, so none can be left out. "
            "Set config.data.split.leave_one_group_out to False and config.data.split.folds to 2 or more."
        )
    groups = 0 if examples.groups is None else len(sort_groups(examples.groups))
    if leave_one_group_out:
        if groups < 2 or not 0 <= fold < groups:
            raise InputError(
                f"config.data.split.fold is {fold}, but {examples.name} has {groups} groups (subjects) to leave out. "
                f"{f'Give 0 to {groups - 1}' if groups > 1 else 'Use folds of examples: by_group False'}."
            )
    elif folds < 2 or not 0 <= fold < folds:
        raise InputError(
            f"config.data.split.fold is {fold} of {folds} folds; there must be 2 or more folds, counted from 0."
        )
    elif grouped and folds > groups:
        raise InputError(
            f"config.data.split.folds is {folds}, but {examples.name} has only {groups} groups (subjects) to deal "
            f"into them. Use {groups} or fewer, or set config.data.split.by_group to False."
        )


def leave_out(examples: Examples, duplicates: Duplicates, fold: int, keep_leaks: bool) -> tuple[np.ndarray, np.ndarray]:
    """Leaves one group out.

    Returns:
      The indices of the `fold`-th group's examples, and those of the others, without examples that equal one of that
      group unless `keep_leaks`.
    """
    groups = examples.require_groups()
    names = sort_groups(groups)
    inside = np.array([str(group) == names[fold] for group in groups])
    logging.info(
        "%s: fold %d of 0 to %d: group %s is the test split.", examples.name, fold, len(names) - 1, names[fold]
    )
    leaks = {i for same in duplicates.sets if inside[list(same)].any() for i in same if not inside[i]}
    if leaks:
        report_leaks(examples, leaks, "of other groups", f"in group {names[fold]}", keep_leaks)
    dropped = set() if keep_leaks else leaks
    rest = np.array([i for i in np.flatnonzero(~inside) if i not in dropped], np.int64)
    return np.flatnonzero(inside), rest
