"""Keeps a run's validation and test examples out of all that it learns from: its extra pictures and its teachers."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import ml_collections
import numpy as np
from absl import logging

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data import sources
from emokd.data.division.apart import leave_out_copies
from emokd.data.division.folds import sort_groups
from emokd.data.examples import Examples
from emokd.errors import InputError, excerpt
from emokd.training.loop import UNLABELLED

LoadSplits = Callable[[ml_collections.ConfigDict], dict[str, Examples]]

_SCORED = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What a run is scored on.

    Attributes:
      data: the run's `config.data`.
      splits: its splits.
    """

    data: ml_collections.ConfigDict
    splits: Mapping[str, Examples]

    def parts(self, names: Sequence[str] = _SCORED) -> list[Examples]:
        """The validation and the test split, each once."""
        parts = [self.splits[name] for name in names if name in self.splits]
        return list({id(part): part for part in parts}.values())


def require_scored_splits(config: ml_collections.ConfigDict, parts: Mapping[str, Examples]) -> None:
    """Checks that there is a validation split to pick the epoch on, and a test split to score.

    Raises:
      InputError: a split is missing; the message says which share to give.
    """
    missing = [name for name in _SCORED if name not in parts]
    if missing:
        shares = ", ".join(f"{name} {config.data.split[name]:g}" for name in ("train", *_SCORED))
        raise InputError(
            f"{parts['train'].name} has no {' and no '.join(missing)} split (config.data.split: {shares}), but a run "
            "picks its epoch on validation and is scored on test. "
            f"Give config.data.split.{missing[0]} a share above 0"
            + (", or set config.data.split.validation_is_test to True." if missing == ["validation"] else ".")
        )


def same_set(first: ml_collections.ConfigDict, second: ml_collections.ConfigDict) -> bool:
    """Whether two `data` sections read one data set, under one name or two; equal keys are then the same example."""
    names = {first.source, second.source}
    if len({sources.family(name) for name in names}) > 1:
        return False
    if names & set(sources.COMPOSED):
        return first.options.to_dict() == second.options.to_dict()
    if not any(map(sources.is_of_any_content, names)):
        return True
    places = [os.path.realpath(sources.place(section.source, section.dir)) for section in (first, second)]
    return places[0] == places[1]


def for_teacher(config: ml_collections.ConfigDict, run: ml_collections.ConfigDict) -> None:
    """Copies the run's settings of a data set into the configuration of a teacher that learns from the same set.

    These are its folder, unless the teacher's names one; its split; how many labels may be used; and the options that
    decide the split.

    Args:
      config: the teacher's configuration, changed in place.
      run: the run's `config.data`.
    """
    data = config.data
    if not run.source or sources.family(data.source) != sources.family(run.source):
        return
    if not data.dir:
        data.source, data.dir = run.source, run.dir
        if run.source in sources.COMPOSED and "sources" in run.options:
            data.options = run.options
    both = {data.source, run.source}
    if not same_set(data, run) and (any(map(sources.is_of_any_content, both)) or both & set(sources.COMPOSED)):
        return
    data.split, data.labels = run.split, run.labels
    for name in sources.split_options(run.source):
        if name in run.options:
            data.options[name] = run.options[name]
        elif name in data.options:
            del data.options[name]


def keep_out(
    config: ml_collections.ConfigDict, parts: Mapping[str, Examples], runs: Sequence[HeldOut]
) -> dict[str, Examples]:
    """A teacher's splits without the examples that the runs it is trained for are scored on.

    Its training split lacks those of their validation and test splits, and its validation split those of their test
    splits.
    """
    parts = dict(parts)
    one = parts.get("validation") is parts.get("test")  # validation_is_test
    for run in runs:
        for name, held in (("train", _SCORED), (UNLABELLED, _SCORED), ("validation", ("test",))):
            if name in parts and not (name == "validation" and one):
                whose = f"the run's {' or '.join(held)} split"
                parts[name] = _leave_out(config.data, parts[name], run, held, f"the teacher's {name} split", whose)
    return parts


def keep_extra_out(config: ml_collections.ConfigDict, extra: Examples, runs: Sequence[HeldOut]) -> Examples:
    """The pictures without labels, but for those of the runs' validation and test splits."""
    data, what = config.data.extra, "config.data.extra"
    if not data.source:
        # The set's own have no names in common with its splits: only their pixels tell whether they are the same.
        data, what = ml_collections.ConfigDict(config.data), "the pictures without labels"
        data.dir = os.path.join(sources.place(data.source, data.dir), UNLABELLED)
    for run in runs:
        extra = _leave_out(data, extra, run, _SCORED, what, "the validation or test split")
    return extra


def warn_of_checkpoint(name: str, folder: pathlib.Path, run: HeldOut, load_splits: LoadSplits) -> None:
    """Warns where a teacher's folder shows that it learned from examples that the run is scored on.

    Args:
      name: the teacher's.
      folder: a model folder; one that does not say how it was trained is skipped.
      run: what the run is scored on.
      load_splits: `jobs.datasets.load_splits`; called where the data set is the same and is divided otherwise.
    """
    config = _trained_with(folder)
    if config is None or not same_set(config.data, run.data):
        return
    with config.unlocked():
        config.data = configuration.with_missing(config.data, defaults.data())
        config.data.source, config.data.dir = run.data.source, run.data.dir
    differing = configuration.differing_keys(_division(config.data), _division(run.data))
    if not differing:
        return
    where = f"teacher {name!r} ({folder})"
    try:
        learned = set(load_splits(config)["train"].keys)
    except InputError as error:
        logging.warning(
            "%s was trained on %s too, divided otherwise (%s); it may have learned from what this run is scored on, "
            "but that cannot be told: %s",
            *(where, run.data.source, ", ".join(differing), error),
        )
        return
    shared = {name: sum(key in learned for key in part.keys) for name, part in run.splits.items() if name in _SCORED}
    if any(shared.values()):
        counts = " and ".join(
            f"{count} of {len(run.splits[name])} of the {name} split" for name, count in shared.items()
        )
        logging.warning(
            "%s has learned from %s: it was trained on %s divided otherwise (%s). What it teaches of them counts in "
            "this run's scores; use one of the same split ({fold} in its path may help), or config.teachers.%s.train.",
            *(where, counts, run.data.source, ", ".join(differing), name),
        )


def _trained_with(folder: pathlib.Path) -> ml_collections.ConfigDict | None:
    """The configuration of the run that trained the model in `folder`, if it says and the data set is known."""
    try:
        config = configuration.from_json(json.loads((folder / "model.json").read_text())["provenance"]["config"])
        in_catalogue = isinstance(config.data, ml_collections.ConfigDict) and sources.family(config.data.source)
        return config if in_catalogue else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, InputError):
        return None


def _division(data: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What decides which examples a split has."""
    split = {key: value for key, value in data.split.items() if key != "keep_leaks"}
    return ml_collections.ConfigDict({"split": split, "options": data.options.to_dict()})


def _leave_out(
    data: ml_collections.ConfigDict, examples: Examples, run: HeldOut, names: Sequence[str], what: str, whose: str
) -> Examples:
    held = run.parts(names)
    generated = {data.source, run.data.source} & set(sources.GENERATED)
    same = same_set(data, run.data)
    if generated and not same:
        return examples  # no other set has the painter's pictures
    # Examples of the run's own splits were compared when it was split.
    others = {key for name, part in run.splits.items() if name not in names for key in part.keys}
    compare = run.data.split.compare_copies and not (same and others.issuperset(examples.keys))
    examples = leave_out_copies(examples, held, what, whose, same_set=same, compare=compare)
    return _leave_out_groups(examples, run, names, what, whose, same)


def _leave_out_groups(
    examples: Examples, run: HeldOut, names: Sequence[str], what: str, whose: str, same: bool
) -> Examples:
    """The examples without those of groups (people) that the run has in the splits `names` alone.

    In another data set equal group names need not be the same people: it logs a warning, and leaves nothing out.
    """

    def groups(parts: Iterable[Examples]) -> set[str]:
        return {str(group) for part in parts if part.groups is not None for group in part.groups}

    others = [part for name, part in run.splits.items() if name not in names]
    shared = (groups(run.parts(names)) - groups(others)) & groups([examples])
    if not shared:
        return examples
    named = excerpt(sort_groups(list(shared)), 3)
    keep = np.array([str(group) not in shared for group in examples.require_groups()])
    if not same:
        logging.warning(
            "%s: %d groups (subjects) of %s have the names of groups in %s (%s): %s. If they are the same people, "
            "leave them out of it.",
            *(examples.name, len(shared), what, whose, run.data.source, named),
        )
        return examples
    if not keep.any():
        raise InputError(
            f"{examples.name}: every example of {what} is of a group (subject) of {whose}: {named}. Give other "
            "examples, or another split."
        )
    logging.warning(
        "%s: %d of %d examples of %s are left out, as their groups (subjects) are in %s: %s.",
        *(examples.name, int((~keep).sum()), len(examples), what, whose, named),
    )
    return examples.select(np.flatnonzero(keep))
