"""Reads any set of TensorFlow Datasets that is prepared as array_record, without TensorFlow."""

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from emokd.data.decode import decode
from emokd.data.division.splits import normalise_split
from emokd.data.examples import Examples
from emokd.data.pictures import check_options
from emokd.data.tables.table import is_missing
from emokd.data.tables.targets import may_name_groups
from emokd.errors import InputError, excerpt, nearest
from emokd.names import normal

OPTIONS = (
    "image", "label", "tasks", "valence", "arousal", "valence_arousal", "affect_range", "group", "id", "splits",
)  # fmt: skip
OURS = "emokd.data.tfds"
"""The package of the builders that come with emokd."""


def load(name: str, directory: str | None, options: Mapping) -> Examples:
    """Loads a prepared set: column `expression`, and `valence_arousal` and further tasks where options name them.

    All labels, and with them every record, are read when the set is loaded; pictures are decoded when they are needed.
    Keys are `SPLIT/NUMBER`, by the record's place in its split, or the values of the feature that `id` names. Where the
    set has several splits, they are prescribed.

    Args:
      name: "NAME", "NAME/CONFIG", "NAME:VERSION" or "NAME/CONFIG:VERSION"; the newest version where none is given.
      directory: the folder of all prepared sets, TFDS's `data_dir`. Empty: `$TFDS_DATA_DIR` or ~/tensorflow_datasets.
      options: `image` and `label`: names of features, a.b for b in a (default: the only picture, the only class
        label); `label` may be "" where the set has none; `tasks`: further class labels, each a column of its name;
        `valence` and `arousal`, or `valence_arousal`, a pair: features of numbers; `affect_range`: the ends of their
        scale (default -1, 1), which become -1 and 1; `group`: the subject's feature; `id`: a feature of unique names;
        `splits`: which of the set's splits to read (default: all); `min_side` (see `picture_examples`).

    Raises:
      InputError: the set is not prepared as array_record (the message has the command), a feature is not there or of
        another kind, a split has an unknown name, or a value is out of range.
    """
    source = f"tfds:{name}"
    check_options(source, options, OPTIONS)
    folder = _find(name, directory)
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(
            f"{folder} is prepared as {builder.info.file_format.value}, which only TensorFlow reads. {_remedy(name)}"
        )
    kinds = _flat(builder.info.features)
    image = _choose(source, kinds, options, "image", tfds.features.Image)
    label = _choose(source, kinds, options, "label", tfds.features.ClassLabel)
    tasks = [_feature(source, kinds, task, tfds.features.ClassLabel) for task in options.get("tasks") or ()]
    parts = _splits(source, builder, options)
    read = {split: builder.as_data_source(split=split, decoders=_undecoded(builder.info.features)) for split in parts}
    places = [(split, i) for split in parts for i in range(len(read[split]))]
    rows, digests = [], []
    logging.info("%s: reading the labels of %d records.", source, len(places))
    wanted = [
        label,
        *tasks,
        *(options.get(key, "") for key in ("valence", "arousal", "valence_arousal", "group", "id")),
    ]
    wanted = [feature for feature in wanted if feature]
    for feature in wanted:
        _feature(source, kinds, feature)
    for split, i in places:
        record = read[split][i]
        rows.append({feature: _value(record, feature) for feature in wanted})
        digests.append(hashlib.blake2b(_value(record, image), digest_size=16).hexdigest())
    columns = {"expression": _ids(rows, label)} if label else {}
    columns |= {task: _ids(rows, task) for task in tasks}
    affect = _affect(source, rows, options)
    columns |= {} if affect is None else {"valence_arousal": affect}
    if not columns:
        raise InputError(
            f"{source}: no feature of labels is named. Set config.data.options.label, or valence and arousal, to "
            f"features of the set: {', '.join(kinds)}."
        )
    if not options.get("group"):
        _report_groups(source, kinds, wanted)
    min_side = int(options.get("min_side", 0) or 0)

    def pixels(i: int, side: int) -> np.ndarray:
        split, number = places[i]
        return decode(_value(read[split][number], image), f"{source}, {split}, record {number}", side)

    return Examples(
        name=source,
        keys=_keys(source, places, rows, options.get("id", "")),
        columns=columns,
        classes={column: tuple(kinds[feature].names) for column, feature in _labels(label, tasks).items()},
        inputs={"image": lambda i: pixels(i, min_side)},
        content=digests.__getitem__,
        pixels=pixels,
        splits=np.array([normalise_split(split) for split, _ in places]) if len(parts) > 1 else None,
        groups=_groups(source, rows, options["group"]) if options.get("group") else None,
    )


def _find(name: str, directory: str | None) -> str:
    """The folder of the newest version, or of the version that `name` gives."""
    path, _, version = name.partition(":")
    root = pathlib.Path(directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    place = root / path
    versions = sorted(
        (folder for folder in place.glob("*") if (folder / "dataset_info.json").is_file() and _version(folder.name)),
        key=lambda folder: _version(folder.name),
    )
    versions = [folder for folder in versions if version in ("", folder.name)]
    if versions:
        return str(versions[-1])
    configs = (
        sorted(folder.parent.parent.name for folder in place.glob("*/*/dataset_info.json")) if place.is_dir() else []
    )
    if configs:
        raise InputError(
            f"tfds:{name} is prepared in {place} with the configurations {excerpt(dict.fromkeys(configs))}: name one, "
            f"as in config.data.source='tfds:{path}/{configs[0]}'."
        )
    raise InputError(f"tfds:{name} is not prepared in {root}. {_remedy(name)}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", text) else ()


def _remedy(name: str) -> str:
    """The command that prepares a set."""
    path = name.partition(":")[0]
    set_name = path.split("/")[0]
    ours = (pathlib.Path(__file__).parents[1] / "tfds" / set_name).is_dir()
    register = f"import {OURS}.{set_name}; " if ours else ""
    return (
        f'Prepare it: python -c "import tensorflow_datasets as tfds; {register}tfds.builder({path!r}, data_dir=FOLDER, '
        "file_format='array_record').download_and_prepare()\" (most builders but ours need TensorFlow for it), "
        "and give the FOLDER as config.data.dir."
    )


def _flat(features: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested features by dotted name: "a.b" is b in a."""
    flattened: dict[str, Any] = {}
    for name, feature in features.items():
        nested = isinstance(feature, tfds.features.FeaturesDict)
        flattened |= _flat(feature, f"{prefix}{name}.") if nested else {prefix + name: feature}
    return flattened


def _feature(source: str, kinds: Mapping[str, Any], name: str, kind: type | None = None) -> str:
    """Checks that a feature exists and is of that kind, and returns its name."""
    if name not in kinds:
        raise InputError(f"{source} has no feature {name!r}.{nearest(name, kinds)} It has {', '.join(kinds)}.")
    if kind is not None and not isinstance(kinds[name], kind):
        raise InputError(f"{source}: the feature {name!r} is a {type(kinds[name]).__name__}, no {kind.__name__}.")
    return name


def _choose(source: str, kinds: Mapping[str, Any], options: Mapping, option: str, kind: type) -> str:
    """The feature that the option names, or the only one of that kind; an option "" names none."""
    if options.get(option) is not None and (options[option] or kind is tfds.features.ClassLabel):
        return _feature(source, kinds, options[option], kind) if options[option] else ""
    candidates = [name for name, feature in kinds.items() if isinstance(feature, kind)]
    if len(candidates) == 1 or (not candidates and kind is tfds.features.ClassLabel):
        return candidates[0] if candidates else ""
    raise InputError(
        f"{source} has {len(candidates)} features of the kind {kind.__name__} ({', '.join(candidates or kinds)}): "
        f"name one as config.data.options.{option}."
    )


def _splits(source: str, builder: Any, options: Mapping) -> list[str]:
    split_names = list(builder.info.splits)
    chosen = options.get("splits") or split_names
    for split in chosen:
        if split not in split_names:
            raise InputError(
                f"{source} has no split {split!r}.{nearest(split, split_names)} It has {', '.join(split_names)}."
            )
    if len(chosen) > 1:
        names = [normalise_split(split) for split in chosen]
        if None in names or len(set(names)) < len(names):
            raise InputError(
                f"{source} has the splits {', '.join(chosen)}, of which not each is one of train, validation and test. "
                "Name those to read as config.data.options.splits; a single one is divided by config.data.split."
            )
    return list(chosen)


def _undecoded(features: Any) -> Any:
    """Decoders that leave pictures as the bytes that they are stored as."""
    return {
        name: _undecoded(feature) if isinstance(feature, tfds.features.FeaturesDict) else tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.FeaturesDict | tfds.features.Image)
    }


def _value(record: Any, feature: str) -> Any:
    for part in feature.split("."):
        record = record[part]
    return record


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _groups(source: str, rows: Sequence[Mapping[str, Any]], feature: str) -> np.ndarray:
    """The group of each record, in `names.normal` form; one without any would be kept together with all such."""
    groups = [normal(_text(row[feature])) for row in rows]
    missing = [i for i, group in enumerate(groups) if is_missing(group)]
    if missing:
        raise InputError(
            f"{source}: the feature {feature!r} is empty in {len(missing)} records, first in record {missing[0]}, so "
            "that nobody knows whom they must not be parted from. Name another config.data.options.group, or prepare "
            "the set with one for each record."
        )
    return np.array(groups)


def _report_groups(source: str, kinds: Mapping[str, Any], read: Sequence[str]) -> None:
    """Warns of features that may name people or recordings, by their names; those that are read are something else.

    A class label such as `scene` is taken as a task's.
    """
    seen = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)
    meant = [
        name
        for name, kind in kinds.items()
        if name not in read
        and not isinstance(kind, seen)
        and may_name_groups(name.split(".")[-1], 0 if isinstance(kind, tfds.features.ClassLabel) else None)
    ]
    if meant:
        logging.warning(
            "%s: %s may name people or recordings, but examples are kept together by none. Set "
            "config.data.options.group to the feature that is meant.",
            *(source, excerpt(map(repr, meant))),
        )


def _labels(label: str, tasks: Sequence[str]) -> dict[str, str]:
    """The feature of each classifying column."""
    return {**({"expression": label} if label else {}), **{task: task for task in tasks}}


def _ids(rows: Sequence[Mapping[str, Any]], feature: str) -> np.ndarray:
    return np.array([row[feature] for row in rows], np.int32)


def _affect(source: str, rows: Sequence[Mapping[str, Any]], options: Mapping) -> np.ndarray | None:
    """Valence and arousal, rescaled from `affect_range` to [-1, 1]; None where options name neither."""
    one, two = options.get("valence_arousal"), [options[key] for key in ("valence", "arousal") if options.get(key)]
    if not one and not two:
        return None
    if (one and two) or (not one and len(two) < 2):
        raise InputError(f"{source}: name config.data.options.valence and arousal both, or valence_arousal, a pair.")
    low, high = _scale(source, options.get("affect_range") or (-1.0, 1.0))
    values = np.array([row[one] if one else [row[name] for name in two] for row in rows], np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(
            f"{source}: valence and arousal are of the shape {values.shape[1:]}; they must be two numbers."
        )
    wrong = np.flatnonzero(((values < low) | (values > high)).any(axis=1))  # NaN is unlabelled
    if len(wrong):
        raise InputError(
            f"{source}: valence or arousal of {len(wrong)} records lies outside {low:g} to {high:g}, first of record "
            f"{wrong[0]}: {values[wrong[0]].tolist()}. Set config.data.options.affect_range to the scale's ends."
        )
    return ((values - low) / (high - low) * 2 - 1).astype(np.float32)


def _scale(source: str, ends: Any) -> tuple[float, float]:
    """The two ends of a scale, checked."""
    try:
        low, high = (float(end) for end in ([] if isinstance(ends, str) else ends))
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high or not np.isfinite(high - low):
        raise InputError(
            f"{source}: config.data.options.affect_range is {ends!r}. Give the two ends of the scale, such as (1, 9)."
        )
    return low, high


def _keys(source: str, places: Sequence[tuple[str, int]], rows: Sequence[Mapping[str, Any]], feature: str) -> list[str]:
    keys = [
        _text(row[feature]) if feature else f"{split}/{i:07d}" for (split, i), row in zip(places, rows, strict=True)
    ]
    if len(set(keys)) < len(keys):
        raise InputError(f"{source}: the feature {feature!r} is not unique. Leave config.data.options.id out.")
    return keys
