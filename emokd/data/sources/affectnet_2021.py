"""AffectNet, release of 2021: `{train,val}_set/images/N.jpg` and `annotations/N_{exp,val,aro,lnd}.npy`."""

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from emokd.data import npy
from emokd.data.affect_cleaning import OPTIONS, select
from emokd.data.decode import DecodeError
from emokd.data.examples import Examples
from emokd.data.face_crop import Box, landmark_box, with_crops
from emokd.data.files.store import Files, open_files
from emokd.data.options import choice
from emokd.data.pictures import check_options, picture_examples
from emokd.data.tables.table import has_plain_digits
from emokd.errors import InputError, excerpt

SETS = {"train_set": "train", "val_set": "test"}
LABELS = {"expression": "exp", "valence": "val", "arousal": "aro"}
LANDMARKS = "lnd"
CROPS = ("none", "landmarks")

_READERS = 8
_CHUNK = 2000


def load(directory: str, options: Mapping) -> Examples:
    """Loads the 2021 release with its eight labels: columns `expression` and `valence_arousal`.

    Tested on generated files only, not on the real data. Splits: `train_set` is train; `val_set` is test, as papers
    report it. A validation split is carved from train (see `data.division.splits`). All labels are read when the set is
    loaded, by threads: three small files for each face, which takes a while. Landmarks are read with their picture.

    Args:
      directory: the folder, or a zip archive of it.
      options: `classes` (8, 7, 5), `cleaning` (`none`, `emonet`) and `no_expression` (`drop`, `refuse`), see
        `affect_cleaning.select`; `crop`: `none` (default: the pictures are crops of faces) or `landmarks` (EmoNet's
        square around them); `min_side`, which has effect only without a crop.

    Raises:
      InputError: a set is missing, two pictures have one annotation, a picture lacks an annotation or an annotation its
        picture, an annotation is no array of one number, or is out of range, or an unknown option value.
    """
    check_options("affectnet_2021", options, (*OPTIONS, "crop"))
    crop = choice("crop", options.get("crop") or CROPS[0], CROPS)
    files = open_files(directory)
    pictures, splits = [], []
    for part, split in SETS.items():
        part_pictures = _pictures(files, part)
        pictures += part_pictures
        splits += [split] * len(part_pictures)
    annotations = {column: _annotations(files, pictures, suffix) for column, suffix in LABELS.items()}
    landmarks = _annotations(files, pictures, LANDMARKS) if crop == "landmarks" else []

    logging.info("affectnet_2021: reading the labels of %d faces.", len(pictures))
    expression, valence, arousal = (_numbers(files, annotations[column]) for column in LABELS)
    selection = select(
        "affectnet_2021",
        expression,
        np.stack([valence, arousal], axis=1),
        options,
        lambda i, column: f"{files.where}/{annotations[column][i]}",
    )
    kept = selection.kept.tolist()
    examples = picture_examples(
        selection.name,
        files,
        [pictures[i] for i in kept],
        selection.columns,
        {"expression": selection.classes},
        options if crop == "none" else {},
        splits=[splits[i] for i in kept],
        face_crop="box",
    )
    return examples if crop == "none" else with_crops(examples, _boxes(files, [landmarks[i] for i in kept]))


def _pictures(files: Files, part: str) -> list[str]:
    """The pictures of one set in order of their numbers, each with its annotation of the expression."""
    images, labels = f"{part}/images/", f"{part}/annotations/"
    names = [name for name in files.pictures() if name.startswith(images)]
    if not names:
        raise InputError(f"{files.where} has no pictures in {images}. Unpack train_set and val_set there.")
    stems: dict[str, str] = {}
    for name in names:
        if (other := stems.setdefault(_stem(name), name)) != name:
            raise InputError(
                f"{files.where}: {other} and {name} have the same annotations, those of {_stem(name)}. Keep one of the "
                "two pictures."
            )
    suffix = f"_{LABELS['expression']}.npy"
    orphans = [
        name
        for name in files.names
        if name.startswith(labels) and name.endswith(suffix) and name[len(labels) : -len(suffix)] not in stems
    ]
    if orphans:
        raise InputError(
            f"{files.where}: {len(orphans)} annotations have no picture in {images}: {excerpt(orphans, 3)}. "
            "Unpack the pictures again."
        )
    return sorted(names, key=lambda name: (len(_stem(name)), name))


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _annotations(files: Files, pictures: Sequence[str], suffix: str) -> list[str]:
    """The annotation file of each picture."""
    names = [f"{picture.split('/')[0]}/annotations/{_stem(picture)}_{suffix}.npy" for picture in pictures]
    missing = [name for name in names if files.find(name) is None]
    if missing:
        raise InputError(
            f"{files.where}: {len(missing)} pictures lack an annotation: {excerpt(missing, 3)}. Unpack the set again."
        )
    return names


def _numbers(files: Files, names: Sequence[str]) -> Float[np.ndarray, " N"]:
    """The number that each file holds."""
    chunks = [names[i : i + _CHUNK] for i in range(0, len(names), _CHUNK)]
    with ThreadPoolExecutor(_READERS) as pool:
        return np.concatenate(list(pool.map(lambda chunk: [_number(files, name) for name in chunk], chunks)))


def _number(files: Files, name: str) -> float:
    # The release is said to store numbers as text; copies store them as numbers.
    values = _array(files, name)
    if values.size != 1:
        raise InputError(f"{files.where}/{name} holds {values.size} values, not one. Restore the file.")
    return float(values.reshape(-1)[0])


def _array(files: Files, name: str) -> Float[np.ndarray, "..."]:
    """A file's finite numbers, stored as numbers or as text."""
    try:
        data = files.read(name)
        npy.header(io.BytesIO(data), len(data))
        stored: Any = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "iufUS":
            raise ValueError("it holds something else")
        if stored.dtype.kind in "US" and not all(map(has_plain_digits, stored.astype(str).reshape(-1).tolist())):
            raise ValueError("its text is no number in the digits 0 to 9")
        values = stored.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("not a finite number")
    except (ValueError, TypeError, EOFError, OSError, OverflowError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{files.where}/{name} cannot be read as an array of numbers: {error}. Restore the file."
        ) from error
    return values


def _boxes(files: Files, names: Sequence[str]) -> Callable[[int], Box]:
    def box(i: int) -> Box:
        try:
            points = _array(files, names[i])
        except InputError as error:
            raise DecodeError(str(error)) from error
        if points.size != 136:
            raise DecodeError(f"{files.where}/{names[i]} holds {points.size} numbers, not 68 points. Restore the file.")
        return landmark_box(points.reshape(68, 2))

    return box
