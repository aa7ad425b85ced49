"""Studies: variants of an experiment times seeds, as a configuration and as a list of runs."""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from emokd.configuration import config as configuration
from emokd.configuration.places import anchor
from emokd.errors import InputError, excerpt, nearest

Changes = Mapping[str, Any]

BASE = "base"
"""Among a variant's changes, this key replaces the study's base configuration file; it comes first."""

KEYS = ("title", "base", "variants", "seeds", "per_seed", "folds", "per_fold", "metric", "also", "baseline", "support")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training run of a study.

    Attributes:
      variant: its variant's name.
      seed: its seed.
      config: its resolved configuration.
      fold: its fold, or None where the study has none.
    """

    variant: str
    seed: int
    config: ml_collections.ConfigDict
    fold: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """What a study's configuration says, checked.

    Attributes:
      title: its heading.
      metric: dotted name of a number in scores.json, such as "student.expression.accuracy".
      also: dotted names of further numbers, of which the table gives the means and the mean differences.
      per_seed: the keys that a seed sets.
      per_fold: the keys that a fold sets; none where the study has no folds.
      baselines: for each variant, those it is compared with.
      support: variants that others build on, which the table leaves out.
      runs: all of them, seed by seed, so that an unfinished study has complete comparisons over all folds.
    """

    title: str
    metric: str
    also: tuple[str, ...]
    per_seed: tuple[str, ...]
    per_fold: tuple[str, ...]
    baselines: Mapping[str, tuple[str, ...]]
    support: tuple[str, ...]
    runs: Sequence[Run]

    @property
    def variants(self) -> list[str]:
        """The variants' names in order."""
        return list(dict.fromkeys(run.variant for run in self.runs))


def define(
    *,
    title: str,
    base: str,
    variants: Mapping[str, Changes],
    metric: str,
    also: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    per_seed: Sequence[str] = ("seed",),
    folds: Sequence[int] = (),
    per_fold: Sequence[str] = (),
    baseline: str | Sequence[str] | Mapping[str, str | Sequence[str]] = (),
    support: Sequence[str] = (),
) -> ml_collections.ConfigDict:
    """A study's configuration, for the `get_config` of a file under configs/studies.

    Args:
      title: stands above the table.
      base: a configuration file, with its argument: "configs/smkd/fi.py:small"; found as `configuration.places.find`
        does.
      variants: changes by dotted key for each variant's name, as on the command line:
        {"uniform": {"weighting.chain": ("uniform",)}}. The key "base" names another file to change. In a text
        "{run:NAME}" stands for the folder of variant NAME's run of the same seed and fold, which comes first.
      metric: dotted name of a number in scores.json, such as "student.expression.accuracy".
      also: further numbers to show.
      seeds: one run of every variant for each.
      per_seed: dotted keys set to the seed, such as "seed"; with "data.split.fold" among them each seed is a fold.
      folds: test folds; every variant has a run for each seed and each fold.
      per_fold: dotted keys set to the fold, such as "data.split.fold".
      baseline: the variants that others are compared with, in pairs of runs of the same seed and fold: one or more for
        all variants, or for each variant its own.
      support: variants that only serve others, such as teachers that these start from; the table leaves them out.
    """
    return ml_collections.ConfigDict(
        {
            "title": title,
            "base": anchor(base),
            # Pairs, because a ConfigDict takes no dots in its keys and forgets their order.
            "variants": tuple((name, _anchored(changes)) for name, changes in variants.items()),
            "seeds": tuple(seeds),
            "per_seed": tuple(per_seed),
            "folds": tuple(folds),
            "per_fold": tuple(per_fold),
            "metric": metric,
            "also": tuple(also),
            "baseline": dict(baseline) if isinstance(baseline, Mapping) else _names(baseline),
            "support": tuple(support),
        }
    )


def _anchored(changes: Changes) -> tuple[tuple[str, Any], ...]:
    """A variant's changes as pairs, with the configuration files that they name anchored."""
    return tuple(
        (key, anchor(value) if value and (key == BASE or configuration.NAMES_A_FILE.fullmatch(key)) else value)
        for key, value in changes.items()
    )


def product(*axes: Mapping[str, Changes]) -> dict[str, dict[str, Any]]:
    """The variants of a grid: one option of each axis, named "first-second".

    Args:
      axes: changes by option; a key that two axes change takes the later one's value.
    """
    variants: dict[str, dict[str, Any]] = {"": {}}
    for axis in axes:
        variants = {
            f"{name}-{option}" if name else option: {**changes, **more}
            for name, changes in variants.items()
            for option, more in axis.items()
        }
    return variants


def create_study(config: ml_collections.ConfigDict, workdir: pathlib.Path = pathlib.Path()) -> Study:
    """Checks a study's configuration and resolves the configuration of every run.

    Args:
      config: made by `define`.
      workdir: the study's folder.

    Raises:
      InputError: a part is missing or wrong, a changed key does not exist, or a baseline is no variant.
    """
    for key in (*KEYS, *config):
        if key not in config:
            raise InputError(f"The study has no {key!r}: write its configuration with emokd.studies.plan.define.")
        if key not in KEYS:
            raise InputError(f"A study has no key {key!r}.{nearest(key, KEYS)}")
    if not config.seeds:
        raise InputError("The study has no seeds: give at least one.")
    for name, values, keys in (
        ("seed", config.seeds, config.per_seed),
        ("fold", config.folds, config.per_fold),
    ):
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
            raise InputError(f"The study's {name}s must be whole numbers, not {values!r}.")
        if len(set(values)) != len(values):
            raise InputError(f"The study names a {name} twice: {values!r}.")
        if bool(values) != bool(keys):
            raise InputError(
                f"The study has {name}s {values!r} and per_{name} {keys!r}: the second names the keys a {name} sets."
            )
    if not config.variants:
        raise InputError("The study has no variants.")
    try:
        variants = {name: dict(changes) for name, changes in config.variants}
    except (TypeError, ValueError) as error:
        raise InputError("The study's variants are not as emokd.studies.plan.define writes them; use it.") from error
    for name in variants:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+=-]*", name):
            raise InputError(f"Variant {name!r} names a folder: use letters, digits, '_', '+', '=' and '-'.")
    bases: dict[str, ml_collections.ConfigDict] = {}
    runs = []
    for seed, fold, (name, given) in itertools.product(config.seeds, config.folds or (None,), variants.items()):
        changes = {key: value for key, value in given.items() if key != BASE}
        base = given.get(BASE, config.base)
        if base not in bases:
            bases[base] = configuration.load(base)
        folder = functools.partial(folder_of, workdir, seed=seed, fold=fold)
        changes = _with_folders(changes, name, list(variants), folder)
        places = {**dict.fromkeys(config.per_seed, seed), **dict.fromkeys(config.per_fold, fold)}
        try:
            resolved = configuration.locked(bases[base], {**changes, **places})
        except InputError as error:
            raise InputError(f"Variant {name!r} of {base}: {error}") from error
        runs.append(Run(name, seed, resolved, fold))
    check_variants(config.support, list(variants))
    return Study(
        title=config.title,
        metric=config.metric,
        also=tuple(config.also),
        per_seed=tuple(config.per_seed),
        per_fold=tuple(config.per_fold),
        baselines=_baselines(config.baseline, [name for name in variants if name not in config.support]),
        support=tuple(config.support),
        runs=runs,
    )


def folder_of(workdir: pathlib.Path, variant: str, seed: int, fold: int | None) -> pathlib.Path:
    """The folder of a run within the study's folder `workdir`."""
    folder = workdir / "runs" / variant / f"seed{seed}"
    return folder if fold is None else folder / f"fold{fold}"


def _with_folders(
    changes: Changes, name: str, variants: Sequence[str], folder: Callable[[str], pathlib.Path]
) -> dict[str, Any]:
    """The changes with "{run:NAME}" replaced by that variant's folder."""

    def replace(match: re.Match) -> str:
        other = match.group(1)
        check_variants([other], variants)
        if variants.index(other) >= variants.index(name):
            raise InputError(f"Variant {name!r} builds on {other!r}, which must come before it.")
        return str(folder(other))

    return {
        key: re.sub(r"\{run:([^}]*)\}", replace, value) if isinstance(value, str) else value
        for key, value in changes.items()
    }


def _baselines(given: Any, variants: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if isinstance(given, ml_collections.ConfigDict):
        check_variants(list(given), variants)
        pairs = {name: _names(given[name]) for name in variants if name in given}
        check_variants([other for others in pairs.values() for other in others], variants)
        return pairs
    check_variants(_names(given), variants)
    return {name: tuple(other for other in _names(given) if other != name) for name in variants}


def check_variants(names: Sequence[str], variants: Sequence[str]) -> None:
    """Checks that every name is a variant.

    Raises:
      InputError: one is not; the nearest is named.
    """
    for name in names:
        if name not in variants:
            raise InputError(
                f"The study has no variant {name!r}.{nearest(name, variants)} Its variants: {excerpt(variants, 20)}."
            )


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, (names,) if isinstance(names, str) else names))
