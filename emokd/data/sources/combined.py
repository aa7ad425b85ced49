"""Combines several labelled picture sets, of which some may have classes and others valence and arousal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from emokd.data import sources
from emokd.data.division.splits import UNPRESCRIBED
from emokd.data.examples import Examples
from emokd.data.pictures import check_options
from emokd.data.tables.class_list import check_classes
from emokd.errors import InputError, nearest
from emokd.labels import UNLABELLED

SECTION = ("source", "dir", "options", "name")


def load(directory: str | None, options: Mapping) -> Examples:
    """Loads the sets of `options.sources` and concatenates them. [ours]

    - Classes are matched by name: those of the first set in its order, then what later sets add. Where one set has
      `votes`, the ids of the others become rows of votes with a single 1.
    - A target that a set does not have is unlabelled in its rows: -1, NaN, or a row of zeros for votes.
    - A key is the set's name, a slash, and the example's own key; group names are made likewise. Where some sets have
      groups, each example of the others is a group of its own.
    - Splits that sets prescribe are kept. Examples of the others are then divided by the configuration's fractions,
      except that a copy of a prescribed example goes with it. Copies between sets are found by their pixels.

    Args:
      directory: not used: each set has its own.
      options: `sources`, two or more of {"source": a set's name, "dir": its folder (empty: `$EMOKD_DATA/<source>`),
        "options": what it takes, "name": the prefix of its keys (by default `source`)}; `min_side`.

    Raises:
      InputError: a set is wrong, has other inputs than pictures, or targets that are fitted on the training split, or
        two have the same name.
    """
    check_options("combined", options, ("sources",))
    if directory:
        raise InputError(
            "config.data.dir: a combined set has no folder. Give each of config.data.options.sources its own."
        )
    parts: dict[str, Examples] = {}
    for i, section in enumerate(_sections(options.get("sources"))):
        where = f"config.data.options.sources[{i}]"
        name = str(section.get("name") or section["source"])
        if name in parts:
            raise InputError(f"{where}: there is a set {name!r} before it. Give it another 'name'.")
        parts[name] = _load(where, name, section, int(options.get("min_side", 0) or 0))
    names, sets = list(parts), list(parts.values())
    columns, classes = _columns(sets)
    offsets = np.cumsum([0, *map(len, parts.values())])
    readers = [part.inputs["image"] for part in parts.values()]

    def place(i: int) -> tuple[int, int]:
        part = int(np.searchsorted(offsets, i, side="right")) - 1
        return part, i - int(offsets[part])

    def read(i: int) -> np.ndarray:
        part, index = place(i)
        return readers[part](index)

    def pixels(i: int, min_side: int) -> np.ndarray:
        part, index = place(i)
        decode = sets[part].pixels
        return readers[part](index) if decode is None else decode(index, min_side)  # painted faces have no files

    def content(i: int) -> str:
        part, index = place(i)
        return f"{names[part]}/{sets[part].content(index)}"  # these digests compare within a set only

    def checksum(i: int) -> str:
        part, index = place(i)
        return (sets[part].checksum or sets[part].content)(index)

    return Examples(
        name=" + ".join(part.name for part in parts.values()),
        keys=[f"{name}/{key}" for name, part in parts.items() for key in part.keys],
        columns=columns,
        classes=classes,
        inputs={"image": read},
        content=content,
        splits=_splits(list(parts.values())),
        groups=_groups(parts),
        face_crop=crops.pop() if len(crops := {part.face_crop for part in parts.values()}) == 1 else "",
        pixels=pixels,
        checksum=checksum,
    )


def _sections(value: Any) -> list[dict]:
    """The sections of `options.sources`, checked."""
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(hasattr(s, "items") for s in value):
        raise InputError(
            "config.data.options.sources must be a tuple of two or more sets, each as "
            '{"source": "ferplus", "dir": "", "options": {}}, ' + f"not {value!r}."
        )
    sections = [dict(section.items()) for section in value]
    for i, section in enumerate(sections):
        where = f"config.data.options.sources[{i}]"
        for key in section:
            if key not in SECTION:
                raise InputError(f"{where} has the key {key!r}.{nearest(key, SECTION)} Known: {', '.join(SECTION)}.")
        if not section.get("source") or section["source"] == "combined":
            raise InputError(f"{where}.source is {section.get('source')!r}; name a single data set.")
    return sections


def _load(where: str, name: str, section: Mapping, min_side: int) -> Examples:
    options = dict(section.get("options") or {})
    try:
        part = sources.load(section["source"], section.get("dir"), options, min_side)
        fitted = sources.finish(section["source"], {"train": part}, options)["train"]
    except InputError as error:
        raise InputError(f"{where} ({name}): {error}") from error
    if set(fitted.columns) != set(part.columns):
        raise InputError(
            f"{where} ({name}): with these options its targets are fitted on the training split, which is not known "
            "before the sets are one. Leave the options out, or use the set alone."
        )
    if list(part.inputs) != ["image"]:
        raise InputError(
            f"{where} ({name}) has the inputs {', '.join(part.inputs)}; only sets of pictures alone can be combined."
        )
    return part


def _columns(parts: Sequence[Examples]) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """The joint targets, and their classes."""
    tasks = dict.fromkeys(task for part in parts for task in part.classes)
    classes = {
        task: tuple(dict.fromkeys(name for part in parts for name in part.classes.get(task, ()))) for task in tasks
    }
    for task, names in classes.items():
        check_classes(
            names,
            {name: next(part.name for part in parts if name in part.classes.get(task, ())) for name in names},
            f"The classes of {task!r}",
        )
        for part in parts:
            missing = [name for name in names if name not in part.classes.get(task, names)]
            if missing:
                logging.info("%s has no class %s of %s.", part.name, ", ".join(missing), task)
    targets = dict.fromkeys(column for part in parts for column in part.columns)
    if "votes" in targets:
        targets.pop("expression", None)
    return {name: np.concatenate([_column(name, part, parts, classes) for part in parts]) for name in targets}, classes


def _column(name: str, part: Examples, parts: Sequence[Examples], classes: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """One target of one set, in the joint classes, or unlabelled."""
    values = part.columns.get(name)
    if name == "votes":
        rows = np.zeros((len(part), len(classes["expression"])), np.float32)
        places = np.array([classes["expression"].index(each) for each in part.classes.get("expression", ())], int)
        if values is not None:
            rows[:, places] = values
        elif "expression" in part.columns:
            ids = part.columns["expression"]
            labelled = np.flatnonzero(ids >= 0)
            rows[labelled, places[ids[labelled]]] = 1
        return rows
    if values is None:
        like = next(other.columns[name] for other in parts if name in other.columns)
        nothing = UNLABELLED if np.issubdtype(like.dtype, np.integer) else np.nan
        return np.full((len(part), *like.shape[1:]), nothing, like.dtype)
    if name not in classes:
        return values
    places = np.array([classes[name].index(each) for each in part.classes[name]], values.dtype)
    return np.where(values >= 0, places[values], values.dtype.type(UNLABELLED))


def _splits(parts: Sequence[Examples]) -> np.ndarray | None:
    if all(part.splits is None for part in parts):
        return None
    return np.concatenate([np.full(len(part), UNPRESCRIBED) if part.splits is None else part.splits for part in parts])


def _groups(parts: Mapping[str, Examples]) -> np.ndarray | None:
    if all(part.groups is None for part in parts.values()):
        return None
    return np.array(
        [
            f"{name}/{group}"
            for name, part in parts.items()
            for group in (part.keys if part.groups is None else part.groups)
        ]
    )
