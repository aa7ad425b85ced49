"""Pictures in class folders: `class/x.jpg`, or `train/class/x.jpg`, `validation/...`, `test/...`."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.division.splits import UNPRESCRIBED, normalise_split
from emokd.data.examples import Examples
from emokd.data.files.listing import by_suffix
from emokd.data.files.store import Files, open_files
from emokd.data.pictures import check_options, class_options, picture_examples
from emokd.data.tables.class_list import check_classes
from emokd.errors import InputError, excerpt
from emokd.names import normal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def load(
    directory: str,
    options: Mapping,
    *,
    name: str = "image_folder",
    classes: Sequence[str] | None = None,
    targets: bool = True,
) -> Examples:
    """Loads a folder (or zip archive) of class folders; pictures may lie deeper inside them.

    Where every top folder is named like a split, the classes are looked for inside the splits. Files that are
    no pictures by their suffix, or lie outside class folders, are ignored and counted in the log. Folders whose names
    differ in their Unicode form alone are one class, and the log says so.

    Args:
      directory: the folder or archive; an `images/` or `images.zip` inside it is used instead when there.
      options: `classes` (a list: their order is the ids'; other folders are ignored; default: the folders
        in sorted order) and `min_side` (see `picture_examples`).
      name: the data set's name, for messages.
      classes: default of `options.classes`.
      targets: whether there must be classes; where not, and there are no folders of them, all pictures are taken.

    Raises:
      InputError: no such place, no class folders, a class without pictures, folders that differ in letter case or
        spaces alone, or split folders mixed with others.
    """
    check_options(name, options, ("classes",))
    files = open_files(directory)
    depth = 1 if _has_splits(files) else 0
    listed = class_options(options, classes)
    folders = _class_folders(name, files, depth)
    if not folders and not targets and files.pictures():
        return picture_examples(name, files, list(files.pictures()), {}, {}, options)
    if not folders:
        raise InputError(
            f"{files.where} has no class folders. Put the pictures in one folder per class, or give a table of labels "
            "(config.data.source = 'manifest')."
        )
    class_names = tuple(folders) if listed is None else listed

    ids = {label: i for i, label in enumerate(class_names)}
    names, labels, splits = [], [], []
    for picture in files.pictures():
        parts = _parts(picture)
        if len(parts) < depth + 2 or normal(parts[depth]) not in ids:
            continue
        names.append(picture)
        labels.append(ids[normal(parts[depth])])
        splits.append((normalise_split(parts[0]) if depth else None) or UNPRESCRIBED)
    _check_classes(files, class_names, folders, labels, splits)
    ignored = set(files.names).difference(names)
    if ignored:
        logging.warning(
            "%s: %d files of %s are no pictures of a class and are ignored: %s.",
            *(name, len(ignored), files.where, by_suffix(ignored)),
        )
    return picture_examples(
        name,
        files,
        names,
        {"expression": np.array(labels, np.int32)},
        {"expression": class_names},
        options,
        splits=splits if depth else None,
    )


def _parts(path: str) -> list[str]:
    return path.split("/")


def _class_folders(name: str, files: Files, depth: int) -> list[str]:
    """The names of the class folders in normal form, sorted."""
    spellings: dict[str, dict[str, str]] = {}
    for folder in files.directories:
        parts = _parts(folder)
        if len(parts) > depth:
            place = "/".join(parts[: depth + 1])
            spellings.setdefault(normal(parts[depth]), {}).setdefault(parts[depth], place)
    for label in filter(_CONTROL.search, spellings):
        raise InputError(f"{files.where}: the folder {label!r} has a control character in its name. Rename it.")
    for label, places in spellings.items():
        written = {unicodedata.normalize("NFC", each): place for each, place in places.items()}
        check_classes(written, {each: f"folder {place}" for each, place in written.items()}, files.where)
        if len(places) > 1:
            logging.warning(
                "%s: %d folders of %s differ in Unicode form alone and are one class, %r: %s.",
                name,
                len(places),
                files.where,
                label,
                ", ".join(map(ascii, places.values())),
            )
    first = {label: f"folder {next(iter(places.values()))}" for label, places in spellings.items()}
    check_classes(spellings, first, files.where)
    return sorted(spellings)


def _has_splits(files: Files) -> bool:
    """Whether the top folders are splits rather than classes."""
    tops = sorted({_parts(folder)[0] for folder in files.directories})
    as_splits = [top for top in tops if normalise_split(top) is not None]
    if not as_splits:
        return False
    if len(as_splits) < len(tops) and "train" in map(normalise_split, as_splits):
        others = [top for top in tops if top not in as_splits]
        raise InputError(
            f"{files.where} mixes split folders ({', '.join(as_splits)}) with others ({excerpt(others, 5)}). "
            "Keep either splits or classes at the top."
        )
    return len(as_splits) == len(tops)


def _check_classes(files: Files, classes: Sequence[str], folders: Sequence[str], labels: Sequence[int], splits) -> None:
    count = Counter(labels)
    train = Counter(label for label, split in zip(labels, splits, strict=True) if split == "train")
    for i, label in enumerate(classes):
        if not count[i]:
            others = [name for name in files.names if label in _parts(name)[:-1]]
            raise InputError(
                f"{files.where}: class {label!r} has no pictures{f', but {by_suffix(others)}' if others else ''}. "
                f"Its folders are {excerpt(folders)}. "
                "Add pictures, remove the folder, or correct config.data.options.classes."
            )
        if train and not train[i]:
            raise InputError(f"{files.where}: class {label!r} has no pictures in the training split. Add some.")
    ignored = [label for label in folders if label not in classes]
    if ignored:
        logging.warning("%s: folders that are not in the class list are ignored: %s.", files.where, excerpt(ignored))
