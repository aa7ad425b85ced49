"""AffectNet, release of 2017 (Mollahosseini et al.): `training.csv`, `validation.csv`, `Manually_Annotated_Images/`."""

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.affect_cleaning import CLASSES, MISSING, OPTIONS, select
from emokd.data.described import constant, described
from emokd.data.examples import Examples
from emokd.data.face_crop import LANDMARK_SCALE, Box, landmark_box, square_around, with_crops
from emokd.data.files.listing import is_picture
from emokd.data.files.store import Files, open_files
from emokd.data.options import choice
from emokd.data.pictures import check_options, picture_examples
from emokd.data.tables.classes import AFFECTNET
from emokd.data.tables.table import Row, has_plain_digits, iterate_table
from emokd.errors import InputError, excerpt
from emokd.names import normal_path

COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
TABLES = {"validation.csv": "test", "training.csv": "train"}
"""The tables and their splits. The test table comes first: it keeps the pictures that both tables list."""

LISTS, PICTURES = "Manually_Annotated_file_lists", "Manually_Annotated_Images"
CROPS = {"landmarks": LANDMARK_SCALE, "face": 0.5, "none": None}
"""Ways to cut out faces, and the scale of `face_crop.square_around` for each; `face` takes the box's mean side."""

_FACE_BOX = COLUMNS[1:5]
_LANDMARKS = 68


def load(directory: str, options: Mapping) -> Examples:
    """Loads AffectNet's manually annotated faces: columns `expression` and `valence_arousal`.

    Tested on generated files only, not on the real data. Splits: `training.csv` is train; `validation.csv` is test,
    since AffectNet's own test set is not published and papers report this one. A validation split is carved from train
    (see `data.division.splits`).

    Faces without an expression (codes 8 to 10) are left out and counted; valence or arousal of -2 is missing. A path
    listed twice keeps its first row, one in both tables its row of `validation.csv`, and the log says so. [ours]

    Args:
      directory: holds the tables, or `Manually_Annotated_file_lists/` with them; and the pictures in
        `Manually_Annotated_Images/` or `Manually_Annotated_Images.zip`. A table without its header line is read
        by the published order of the columns, and the log says so.
      options: `classes` (8, 7, 5), `cleaning` (`none`, `emonet`) and `no_expression` (`drop`, `refuse`), see
        `affect_cleaning.select`; `crop`: `landmarks` (default; EmoNet's square), `face` (the square of the table's
        face box) or `none`; `min_side`, which has effect only without a crop.

    Raises:
      InputError: a table or picture is missing, or a row is wrong, or an unknown option value.
    """
    check_options("affectnet", options, (*OPTIONS, "crop"))
    crop = choice("crop", options.get("crop") or "landmarks", tuple(CROPS))
    files = open_files(directory, PICTURES)
    places: list[tuple[str, int]] = []
    pictures, labels, boxes, splits = [], [], [], []
    first: dict[str, tuple[str, int]] = {}
    repeated = []
    for table, split in TABLES.items():
        for row in _rows(_find_table(directory, table), _columns(crop)):
            path = normal_path(row.text("subDirectory_filePath"))
            if path in first:
                repeated.append(f"{path} ({table}, line {row.line}; {first[path][0]}, line {first[path][1]})")
                continue
            first[path] = (table, row.line)
            places.append((row.table, row.line))
            pictures.append(path)
            labels.append([row.number("expression"), *(_affect(row, column) for column in ("valence", "arousal"))])
            # A row without a face may have no box.
            boxes.append(_box(row, crop) if crop != "none" and labels[-1][0] < len(AFFECTNET) else None)
            splits.append(split)
    if repeated:
        logging.warning("affectnet: %d rows list a path again; the first counts: %s.", len(repeated), excerpt(repeated))

    values = np.array(labels)
    selection = select(
        "affectnet",
        values[:, 0],
        values[:, 1:],
        options,
        lambda i, column: f"{places[i][0]}, line {places[i][1]}",
    )
    kept = selection.kept.tolist()
    examples = picture_examples(
        selection.name,
        files,
        _find_pictures(files, [pictures[i] for i in kept], [places[i] for i in kept]),
        selection.columns,
        {"expression": selection.classes},
        options if crop == "none" else {},
        splits=[splits[i] for i in kept],
    )
    scale = CROPS[crop]
    if scale is None:
        return examples
    squares = np.array([boxes[i] for i in kept])
    return with_crops(examples, lambda i: tuple(squares[i].tolist()), scale)


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of `load`, with black pictures of one pixel: the canvas decides their size."""
    check_options("affectnet", options, (*OPTIONS, "crop"))
    classes = CLASSES[choice("classes", str(options.get("classes") or 8), tuple(CLASSES))]
    pictures = {"image": constant((1, 1, 3), np.uint8)}
    return described("affectnet", rows, {"expression": classes}, pictures, valence_arousal=True)


def _find_table(directory: str, name: str) -> str:
    below = os.path.join(directory, LISTS, name)
    return below if os.path.isfile(below) else os.path.join(directory, name)


def _columns(crop: str) -> Sequence[str]:
    """The columns that are needed with this way of cutting out faces."""
    boxes = {"landmarks": ("facial_landmarks",), "face": _FACE_BOX, "none": ()}[crop]
    return (COLUMNS[0], *boxes, "expression", "valence", "arousal")


def _rows(path: str, required: Sequence[str]) -> Iterator[Row]:
    """The rows of a table one by one: together, with their landmarks, they would take half a gigabyte."""
    if not os.path.exists(path):
        raise InputError(
            f"The table {path} does not exist. Put {' and '.join(TABLES)} there, or in {LISTS} beside {PICTURES}."
        )
    return iterate_table(path, required, lambda top: _columns_without_header(path, top), ",")


def _columns_without_header(path: str, top: Sequence[str]) -> Sequence[str] | None:
    """The columns of a table whose first line is a row already; None where it is a header."""
    if set(COLUMNS).intersection(top):
        return None
    if len(top) == len(COLUMNS) and is_picture(top[0]):
        logging.warning("%s has no header line; its columns are read as %s.", path, ", ".join(COLUMNS))
        return COLUMNS
    raise InputError(
        f"{path}, line 1 is neither a header nor a row of nine cells that begins with a picture. "
        f"The header is {','.join(COLUMNS)}."
    )


def _affect(row: Row, column: str) -> float:
    return MISSING if row.missing(column) else row.number(column)


def _box(row: Row, crop: str) -> Box:
    """The box that the crop is around."""
    if crop == "face":
        left, top, width, height = (row.number(column) for column in _FACE_BOX)
        box = (left, top, left + width, top + height)
    else:
        text = row.text("facial_landmarks")
        try:
            if not has_plain_digits(text):
                raise ValueError
            points = np.array(text.split(";"), np.float64)
        except ValueError:
            raise row.error("column 'facial_landmarks' holds what is not a number", "Correct the row.") from None
        if len(points) != 2 * _LANDMARKS:
            raise row.error(
                f"column 'facial_landmarks' holds {len(points)} numbers, not {2 * _LANDMARKS} (x;y;x;y;...)",
                "Correct or remove the row.",
            )
        box = landmark_box(points.reshape(_LANDMARKS, 2))
    try:
        square_around(box)
    except InputError as error:
        raise row.error(str(error), "Or set config.data.options.crop to 'none'.") from None
    return box


def _find_pictures(files: Files, paths: Sequence[str], places: Sequence[tuple[str, int]]) -> list[str]:
    names = [files.find(path) for path in paths]
    missing = [i for i, name in enumerate(names) if name is None]
    if missing:
        table, line = places[missing[0]]
        others = f" ({len(missing) - 1} more pictures are missing)" if len(missing) > 1 else ""
        raise InputError(
            f"{table}, line {line}: {paths[missing[0]]!r} is not in {files.where}{others}. "
            f"Restore the pictures (paths count from {PICTURES}), or remove the rows."
        )
    return [name for name in names if name is not None]
