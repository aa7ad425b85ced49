"""Divides examples among train, validation and test: prescribed splits, deterministic stratified ones, and folds."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.division.blocks import find_blocks
from emokd.data.division.crossings import report_crossings
from emokd.data.division.duplicates import Duplicates, find_duplicates, report_duplicates, report_leaks
from emokd.data.division.folds import check_folds, leave_out, sort_groups
from emokd.data.division.strata import find_strata
from emokd.data.examples import Examples, stable_hash
from emokd.errors import InputError, excerpt

SPLITS = ("train", "validation", "test")
UNPRESCRIBED = ""
"""In `Examples.splits`: no prescribed split; for a set without splits that is joined to sets with splits."""

_OTHER_NAMES = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "publictest": "validation",
    "testing": "test",
    "privatetest": "test",
}
_WHAT_IT_HOLDS = re.compile(r"(?:set|data|images?|split)+$")  # as in test_set, Training-Data, val images
# The order in which shares are cut off. Of equal examples in several prescribed splits, the first split's stay.
_CUT_ORDER = ("test", "validation", "train")


def normalise_split(name: str) -> str | None:
    """`train`, `validation` or `test` for the usual spellings (`Training`, `val`, `dev_set`, ...), else None."""
    joined = re.sub(r"[\s_-]", "", str(name).lower())
    joined = _WHAT_IT_HOLDS.sub("", joined)
    return joined if joined in SPLITS else _OTHER_NAMES.get(joined)


def split(
    examples: Examples,
    fractions: Mapping[str, float],
    seed: int,
    folds: int = 0,
    fold: int = 0,
    leave_one_group_out: bool = False,
    use_prescribed: bool = True,
    by_group: bool = True,
    keep_leaks: bool = False,
    validation_is_test: bool = False,
    compare_copies: bool = True,
    duplicates: Duplicates | None = None,
) -> dict[str, Examples]:
    """Divides examples among train, validation and test.

    *Prescribed*: splits that the set itself prescribes are kept. One that `fractions` asks for and the set does
    not have is carved from train by the rule below, in the proportion of its fraction to that of train. An example
    of train or validation that has an equal one in a later split leaks: it is left out, so that the test set
    stays what the literature tests on (`keep_leaks=True` leaves such examples in). Examples whose split is
    `UNPRESCRIBED` go with their copies among the others, and the rest of them are divided by the rule below. [ours]

    *Otherwise* [ours]: within each stratum (expression; majority of the votes; terciles of valence; unlabelled)
    the examples are ordered by a hash of (seed, key) and cut at the rounded cumulative fractions. Each split holds
    its share of each stratum within one example, whatever the order of the examples. A new example moves at most
    one other over each cut of its own stratum, and none of another stratum (except that terciles themselves shift
    by an example). Equal examples go together and count as one block of their size; the share then holds within
    that size. So do near copies, unless they chain too many together or leave a split without a class; then the log
    says so. With groups (subjects), whole groups are dealt one by one, largest first, to the split that lacks
    most of their strata: shares are then approximate, and a new example may move whole groups.

    *Folds*: by the same rules, fold `fold` of `folds` is test; validation is carved from the rest. With
    `leave_one_group_out` each group (subject) is a fold: the `fold`-th in sorted order, numbers in names counting as
    numbers, is test, and an example of another group that equals one of it is left out. [ours]

    The log says how many groups, and how many near copies, have examples in several splits, and which classes not all
    splits have.

    Args:
      examples: the whole set.
      fractions: shares by split, adding up to 1; a split without a share, or with 0, is not made.
      seed: another seed gives another division.
      folds: number of folds, 0 for none.
      fold: which of them, or which group, is the test set.
      leave_one_group_out: each group is a fold; `folds` stays 0. Validation then consists of whole groups, too.
      use_prescribed: False ignores the splits that the set prescribes.
      by_group: keep each of `examples.groups` in one split, where there are groups.
      keep_leaks: keep training and validation examples that equal one of a later split, or of the group left out.
      validation_is_test: no validation split is made; the test split stands in for it, so that it picks the epoch.
        Scores are then optimistic, and a warning says so.
      compare_copies: find equal and near copies in other bytes, for which every picture is decoded once; False: equal
        bytes alone.
      duplicates: the result of `find_duplicates` for the whole set; None to compute it.

    Returns:
      The examples of each split, in their original order. Splits are disjoint (but for `validation_is_test`) and
      together hold all examples but leaks.

    Raises:
      InputError: wrong fractions or folds, an unknown prescribed split, a class with too few examples, or a fold or
        prescribed split, train or test, that has a single class of expression.
    """
    shares = _check_fractions(fractions)
    prescribed = examples.splits if use_prescribed else None
    grouped = (by_group or leave_one_group_out) and examples.groups is not None
    check_folds(examples, folds, fold, leave_one_group_out, prescribed is not None, grouped)
    if validation_is_test:
        shares = _without_validation(shares)
    if duplicates is None:
        duplicates = find_duplicates(examples, compare_copies)
    report_duplicates(examples, duplicates)
    pool = _Pool(examples, duplicates, grouped)
    everything = np.arange(len(examples))
    if prescribed is not None:
        parts, free = _prescribed(examples, prescribed, duplicates, pool.blocks.near, keep_leaks)
        if "train" in parts:
            parts |= pool.divide(parts["train"], _missing_shares(shares, parts), f"{seed}/carve")
        for name, more in (pool.divide(free, shares, f"{seed}/split") if len(free) else {}).items():
            parts[name] = np.concatenate([parts[name], more]) if name in parts else more
        pool.check_fold(parts, "the prescribed splits")
    elif folds or leave_one_group_out:
        if leave_one_group_out:
            test, rest = leave_out(examples, duplicates, fold, keep_leaks)
        else:
            dealt = pool.divide(everything, {f"fold {i}": 1 / folds for i in range(folds)}, f"{seed}/folds")
            test = dealt.pop(f"fold {fold}")
            rest = np.concatenate(list(dealt.values()))
        learning = {name: share for name, share in shares.items() if name != "test"}
        total = sum(learning.values())
        parts = pool.divide(rest, {k: v / total for k, v in learning.items()}, f"{seed}/fold/{fold}")
        parts["test"] = test
        pool.check_fold(parts, f"fold {fold}")
    else:
        parts = pool.divide(everything, shares, f"{seed}/split")
    report_crossings(examples, parts, duplicates.near)
    by_name = {name: examples.select(np.sort(parts[name])) for name in SPLITS if name in parts}
    return _with_test_as_validation(examples, by_name) if validation_is_test else by_name


class _Pool:
    """Examples as indivisible blocks (equal examples; groups; near copies), and the rules for dividing them."""

    def __init__(self, examples: Examples, duplicates: Duplicates, grouped: bool):
        self.examples = examples
        self.grouped = grouped
        self.strata, self.stratum_names = find_strata(examples)
        self.blocks = find_blocks(examples, duplicates, grouped)
        self.block = self.blocks.joined

    def divide(self, indices: np.ndarray, shares: Mapping[str, float], salt: str) -> dict[str, np.ndarray]:
        """Divides the examples at `indices` by `shares`, which add up to 1."""
        if len(shares) < 2:
            return dict.fromkeys(shares, indices)
        try:
            return self._divide(indices, shares, salt)
        except InputError:
            if self.block == self.blocks.strict:
                raise
            self.block = self.blocks.strict
            parts = self._divide(indices, shares, salt)
            logging.warning(
                "%s: near copies are not kept together: a split would get none of a class.", self.examples.name
            )
            return parts

    def _divide(self, indices: np.ndarray, shares: Mapping[str, float], salt: str) -> dict[str, np.ndarray]:
        blocks = defaultdict(list)
        for i in indices:
            blocks[self.block[i]].append(int(i))
        keys = self.examples.keys
        members = [sorted(block, key=keys.__getitem__) for block in blocks.values()]
        members.sort(key=lambda block: (stable_hash(keys[block[0]], salt), keys[block[0]]))
        dealt = self._deal_groups(members, shares) if self.grouped else self._cut(members, shares)
        parts = {name: np.array(sorted(dealt[name]), np.int64) for name in shares}
        self._check(indices, parts, shares)
        return parts

    def _cut(self, blocks: Sequence[Sequence[int]], shares: Mapping[str, float]) -> dict[str, list[int]]:
        dealt: dict[str, list[int]] = defaultdict(list)
        by_stratum = defaultdict(list)
        for block in blocks:
            by_stratum[self.strata[block[0]]].append(block)
        names = list(shares)
        for stratum in by_stratum.values():
            total = sum(map(len, stratum))
            cuts = np.floor(np.cumsum([shares[name] for name in names])[:-1] * total + 0.5)
            start = 0
            for block in stratum:
                dealt[names[int(np.searchsorted(cuts, start + len(block) / 2, side="left"))]] += block
                start += len(block)
        return dealt

    def _deal_groups(self, blocks: Sequence[Sequence[int]], shares: Mapping[str, float]) -> dict[str, list[int]]:
        dealt: dict[str, list[int]] = {name: [] for name in shares}
        histograms = [np.bincount(self.strata[block], minlength=len(self.stratum_names)) for block in blocks]
        total = np.sum(histograms, axis=0)
        lacking = {name: share * total for name, share in shares.items()}
        for block, histogram in sorted(zip(blocks, histograms, strict=True), key=lambda pair: -len(pair[0])):
            # The drop in the squared distance to the target, each stratum weighed by its size; the emptiest wins ties.
            gain = {
                name: np.sum((2 * lack * histogram - histogram**2) / np.maximum(total, 1))
                for name, lack in lacking.items()
            }
            name = max(shares, key=lambda name: (round(float(gain[name]), 9), -len(dealt[name])))
            dealt[name] += block
            lacking[name] = lacking[name] - histogram
        return dealt

    def _check(self, indices: np.ndarray, parts: Mapping[str, np.ndarray], shares: Mapping[str, float]) -> None:
        count = Counter(self.strata[indices].tolist())
        for name, part in parts.items():
            if not len(part):
                raise InputError(
                    f"{self.examples.name}: split {name!r} ({shares[name]:.0%}) gets nothing of {len(indices)} examples"
                    f"{' in whole groups' if self.grouped else ''}. Give it a larger fraction or use fewer folds"
                    f"{', or set config.data.split.by_group to False' if self.grouped else ''}."
                )
            present = set(self.strata[part].tolist())
            for stratum, n in sorted(count.items()):
                if stratum in present or self.stratum_names[stratum] == "unlabelled":
                    continue
                if self.grouped and name != "train":
                    continue  # `report_crossings` logs it
                whole = " in whole groups" if self.grouped else ""
                groups = "set config.data.split.by_group to False, " if self.grouped else ""
                raise InputError(
                    f"{self.examples.name}: {self.stratum_names[stratum]} has {n} examples, too few for split {name!r} "
                    f"({shares[name]:.0%}) to get one{whole}. Give it a larger fraction, use fewer folds, {groups}"
                    "or drop the class."
                )

    def check_fold(self, parts: Mapping[str, np.ndarray], where: str) -> None:
        """Checks that a fold can be trained on and scored: two classes at least, where the set has two."""
        if "expression" not in self.examples.classes:
            return

        def classes(indices: np.ndarray) -> list[str]:
            present = [self.stratum_names[i] for i in sorted(set(self.strata[indices].tolist()))]
            return [name for name in present if name != "unlabelled"]

        if len(classes(np.arange(len(self.strata)))) < 2:
            return
        for name in ("train", "test"):
            present = classes(parts[name]) if name in parts else []
            if name in parts and len(present) < 2:
                groups = self.examples.groups
                who = "" if groups is None else f" (groups {excerpt(sort_groups(groups[parts[name]]), 3)})"
                raise InputError(
                    f"{self.examples.name}: in {where} the {name} split{who} has "
                    f"{f'only {present[0]}' if present else 'no labelled example'}, so it cannot be "
                    f"{'learned' if name == 'train' else 'scored'}. Use another config.data.split.fold, or larger "
                    "folds: fewer config.data.split.folds in place of leave_one_group_out."
                )


def _check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    shares = {}
    for name, share in fractions.items():
        split_name = normalise_split(name)
        if split_name is None:
            raise InputError(f"config.data.split: there is no split {name!r}. Use {', '.join(SPLITS)}.")
        if not 0 <= share <= 1:
            raise InputError(f"config.data.split.{name} is {share}; it must lie in [0, 1].")
        shares[split_name] = float(share)
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"config.data.split: the shares add up to {sum(shares.values()):g}, not 1: {dict(fractions)}.")
    if not shares.get("train"):
        raise InputError("config.data.split gives train nothing. Give it a share above 0.")
    return {name: shares[name] for name in _CUT_ORDER if shares.get(name)}


def _without_validation(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares with validation's given to train."""
    rest = {name: share for name, share in shares.items() if name != "validation"}
    return {**rest, "train": rest["train"] + shares.get("validation", 0.0)}


def _with_test_as_validation(examples: Examples, parts: Mapping[str, Examples]) -> dict[str, Examples]:
    if "validation" in parts:
        raise InputError(
            f"{examples.name} prescribes a validation split: let it pick the epoch. Set "
            "config.data.split.validation_is_test to False, or use_prescribed to False to divide the set anew."
        )
    if "test" not in parts:
        raise InputError(
            "config.data.split.validation_is_test needs a test split. Give config.data.split.test a share above 0."
        )
    logging.warning(
        "%s: the test split also picks the epoch (config.data.split.validation_is_test), so its scores are optimistic "
        "and compare only with others made in the same way.",
        examples.name,
    )
    return {"train": parts["train"], "validation": parts["test"], "test": parts["test"]}


def _prescribed(
    examples: Examples,
    prescribed: np.ndarray,
    duplicates: Duplicates,
    near: Sequence[Sequence[int]],
    keep_leaks: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The indices of each prescribed split's examples, and of those without one."""
    raw = list(map(str, prescribed))
    spellings = {spelling: spelling if spelling == UNPRESCRIBED else normalise_split(spelling) for spelling in raw}
    unknown = sorted(spelling for spelling, name in spellings.items() if name is None)
    if unknown:
        raise InputError(f"{examples.name}: unknown prescribed splits {excerpt(unknown)}. Use {', '.join(SPLITS)}.")
    names = [spellings[spelling] or UNPRESCRIBED for spelling in raw]
    leaks = set()
    for same in duplicates.sets:
        keeper = min((names[i] for i in same if names[i]), key=_CUT_ORDER.index, default=UNPRESCRIBED)
        for i in same:
            names[i] = names[i] or keeper
        leaks |= {i for i in same if names[i] != keeper}
    for alike in near:
        keeper = min((names[i] for i in alike if names[i]), key=_CUT_ORDER.index, default=UNPRESCRIBED)
        for i in alike:
            names[i] = names[i] or keeper
    if "train" not in names and UNPRESCRIBED not in names:
        raise InputError(
            f"{examples.name} prescribes {excerpt(sorted(set(names)))} but no train. "
            "Set config.data.split.use_prescribed to False."
        )
    if leaks:
        report_leaks(examples, leaks, "of train or validation", "in a later split", keep_leaks)
    dropped = set() if keep_leaks else leaks
    parts = {
        name: np.array([i for i, spelling in enumerate(names) if spelling == name and i not in dropped], np.int64)
        for name in (*SPLITS, UNPRESCRIBED)
        if name in names
    }
    free = parts.pop(UNPRESCRIBED, np.array([], np.int64))
    for name, part in parts.items():
        if not len(part):
            raise InputError(
                f"{examples.name}: every example of split {name!r} has an equal one in a later split. "
                "Correct the splits, or set config.data.split.keep_leaks to True."
            )
    return parts, free


def _missing_shares(shares: Mapping[str, float], parts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The shares by which train is divided: train itself, and each split that is asked for but not prescribed."""
    wanted = {name: share for name, share in shares.items() if name == "train" or name not in parts}
    return {name: share / sum(wanted.values()) for name, share in wanted.items()}
