"""Pictures in class folders: `class/x.jpg`, or `train/class/x.jpg`, `validation/...`, `test/...`.

A folder `unlabelled` beside the class folders is no class: its pictures have no label and are in no split.
"""

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

WITHOUT_LABELS = ("unlabelled", "unlabeled")
"""Names of the folder of pictures without labels, in any letter case."""

_SPEAKS_OF_A_SPLIT = re.compile(
    r"(?<![a-z])(train|training|val|valid|validation|dev|test|testing)(?![a-z])", re.IGNORECASE
)
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

    A folder `unlabelled` (or `unlabeled`), at the top or inside a split, is a class only where the class list names it.
    Its pictures are counted in the log and left to `load_unlabelled`. [ours]

    Args:
      directory: the folder or archive; an `images/` or `images.zip` inside it is used instead when there.
      options: `classes` (a list: their order is the ids'; other folders are ignored; default: the folders
        in sorted order) and `min_side` (see `picture_examples`).
      name: the data set's name, for messages.
      classes: default of `options.classes`.
      targets: whether there must be classes; where not, pictures without labels are taken too, and all pictures where
        there are no folders of classes.

    Raises:
      InputError: no such place, no class folders, a class without pictures, folders that differ in letter case or
        spaces alone, split folders mixed with others, or folders that seem to be splits of another name.
    """
    check_options(name, options, ("classes",))
    files = open_files(directory)
    listed = class_options(options, classes)
    depth = 1 if _has_splits(files, listed) else 0
    folders = _class_folders(name, files, depth, listed)
    if not folders and not targets and files.pictures():
        return picture_examples(name, files, list(files.pictures()), {}, {}, options)
    if not folders:
        raise InputError(
            f"{files.where} has no class folders. Put the pictures in one folder per class, or give a table of labels "
            "(config.data.source = 'manifest')."
        )
    unlabelled, unread = _without_labels(files, depth, listed)
    class_names = tuple(folders) if listed is None else listed

    ids = {label: i for i, label in enumerate(class_names)}
    names, labels, splits = [], [], []
    for picture in sorted(set(files.pictures()).difference(unlabelled, unread)):
        parts = _parts(picture)
        if len(parts) < depth + 2 or normal(parts[depth]) not in ids:
            continue
        names.append(picture)
        labels.append(ids[normal(parts[depth])])
        splits.append((normalise_split(parts[0]) if depth else None) or UNPRESCRIBED)
    _check_classes(files, class_names, folders, labels, splits)
    ignored = set(files.names).difference(names, unlabelled, unread)
    if ignored:
        logging.warning(
            "%s: %d files of %s are no pictures of a class and are ignored: %s.",
            *(name, len(ignored), files.where, by_suffix(ignored)),
        )
    if unread:
        logging.warning(
            "%s: %d pictures without a label in splits that are scored are not read: %s.",
            *(name, len(unread), excerpt(unread, 3)),
        )
    if not targets and unlabelled:
        return picture_examples(name, files, sorted([*names, *unlabelled]), {}, {}, options)
    if unlabelled:
        logging.info(
            "%s: %d pictures of %s have no label (%s), and are in no split.",
            *(name, len(unlabelled), files.where, excerpt(unlabelled, 3)),
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


def load_unlabelled(directory: str, options: Mapping) -> Examples | None:
    """Loads the pictures without labels: those in the folder `unlabelled` beside the class folders, however deep.

    With folders of splits it is beside these, or inside that of the training split; inside the others it is not read.
    Keys count from `directory`, so that they differ from those of labelled pictures.

    Args:
      directory: as for `load`.
      options: as for `load`.

    Returns:
      Examples without targets; None where there are no such pictures.

    Raises:
      InputError: no such place, or split folders mixed with others.
    """
    check_options("image_folder", options, ("classes",))
    files = open_files(directory)
    listed = class_options(options)
    names, _ = _without_labels(files, 1 if _has_splits(files, listed) else 0, listed)
    return picture_examples("image_folder", files, names, {}, {}, options) if names else None


def _parts(path: str) -> list[str]:
    return path.split("/")


def _is_without_labels(folder: str, listed: Sequence[str] | None) -> bool:
    return normal(folder).casefold() in WITHOUT_LABELS and normal(folder) not in (listed or ())


def _without_labels(files: Files, depth: int, listed: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The pictures in folders of those without labels; apart from them those of splits that are scored."""
    learned: list[str] = []
    scored: list[str] = []
    for picture in files.pictures():
        folders = _parts(picture)[:-1]
        if folders and _is_without_labels(folders[0], listed):
            learned.append(picture)
        elif depth and len(folders) > 1 and _is_without_labels(folders[1], listed):
            (learned if normalise_split(folders[0]) == "train" else scored).append(picture)
    return learned, scored


def _class_folders(name: str, files: Files, depth: int, listed: Sequence[str] | None) -> list[str]:
    """The names of the class folders in normal form, sorted."""
    spellings: dict[str, dict[str, str]] = {}
    for folder in files.directories:
        parts = _parts(folder)
        if len(parts) > depth and not any(_is_without_labels(part, listed) for part in parts[: depth + 1]):
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


def _has_splits(files: Files, listed: Sequence[str] | None) -> bool:
    """Whether the top folders are splits rather than classes; one of pictures without labels may be beside either."""
    tops = sorted({_parts(folder)[0] for folder in files.directories})
    tops = [top for top in tops if not _is_without_labels(top, listed)]
    as_splits = [top for top in tops if normalise_split(top) is not None]
    if not as_splits:
        if listed is None:
            _refuse_renamed_splits(files, tops)
        return False
    if len(as_splits) < len(tops) and "train" in map(normalise_split, as_splits):
        others = [top for top in tops if top not in as_splits]
        raise InputError(
            f"{files.where} mixes split folders ({', '.join(as_splits)}) with others ({excerpt(others, 5)}). "
            "Keep either splits or classes at the top."
        )
    return len(as_splits) == len(tops)


def _refuse_renamed_splits(files: Files, tops: Sequence[str]) -> None:
    """Refuses top folders of the same class folders that all speak of a split, such as `fer_train` and `fer_test`."""
    inside: dict[str, set[str]] = {top: set() for top in tops}
    for top, folder, *_ in (_parts(folder) for folder in files.directories if "/" in folder):
        if top in inside:
            inside[top].add(normal(folder))
    same = len(set(map(frozenset, inside.values()))) == 1 and len(tops) > 1
    if same and len(inside[tops[0]]) > 1 and all(map(_SPEAKS_OF_A_SPLIT.search, tops)):
        raise InputError(
            f"{files.where}: the folders {excerpt(tops)} each hold the same folders ({excerpt(sorted(inside[tops[0]]))}"
            "), so they seem to be splits rather than classes. Rename them to train, validation or test; where they "
            "are classes, name them in config.data.options.classes."
        )


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
