"""RAF-DB (Li et al. 2017), the basic set: `EmoLabel/list_patition_label.txt` and `Image/aligned/`."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.options import choice
from emokd.data.pictures import check_options, find_pictures, picture_examples, report_unused
from emokd.data.tables.classes import AFFECTNET
from emokd.data.tables.table import Row
from emokd.data.tables.text import read_lines
from emokd.errors import InputError

LIST = os.path.join("EmoLabel", "list_patition_label.txt")  # The publishers' spelling.
CLASSES = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
"""The seven expressions by their codes 1 to 7."""
ORDERS = {"rafdb": CLASSES, "affectnet": AFFECTNET[:7]}


def load(directory: str, options: Mapping) -> Examples:
    """Loads RAF-DB's basic set, aligned faces: column `expression`. There is no valence or arousal.

    Tested on generated files only, not on the real data. Splits are by the names, `train_...` and `test_...`; a
    validation split is carved from train (see `data.division.splits`).

    Args:
      directory: holds `EmoLabel/list_patition_label.txt`, with lines such as `train_00001.jpg 5`, and
        `Image/aligned/` or `Image/aligned.zip`, with `train_00001_aligned.jpg`.
      options: `order`: `rafdb` (surprise, fear, disgust, happy, sad, anger, neutral: the codes 1 to 7; the default)
        or `affectnet` (neutral, happy, sad, surprise, fear, disgust, anger); `min_side` (see `picture_examples`).

    Raises:
      InputError: the list or a picture is missing, a line is wrong, or an unknown option value.
    """
    check_options("rafdb", options, ("order",))
    classes = ORDERS[choice("order", options.get("order") or "rafdb", tuple(ORDERS))]
    rows = _read_list(os.path.join(directory, LIST))
    labels = [classes.index(CLASSES[_code(row) - 1]) for row in rows]
    splits = [_split(row) for row in rows]
    files = open_files(os.path.join(directory, "Image"), "aligned")
    names = find_pictures(files, rows, "picture")
    report_unused("rafdb", files, names)
    columns = {"expression": np.array(labels, np.int32)}
    heads = {"expression": classes}
    return picture_examples("rafdb", files, names, columns, heads, options, splits=splits, face_crop="box")


def _read_list(path: str) -> list[Row]:
    if not os.path.exists(path):
        raise InputError(
            f"The list {path} does not exist. Give the folder of RAF-DB's basic set, with EmoLabel and Image in it."
        )
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2:
            raise InputError(f"{path}, line {number}: {line.strip()!r} is not a name and a code. Correct the line.")
        stem, suffix = os.path.splitext(cells[0])
        rows.append(Row(path, number, {"picture": f"{stem}_aligned{suffix}", "code": cells[1]}))
    if not rows:
        raise InputError(f"{path} is empty. Restore the file.")
    return rows


def _code(row: Row) -> int:
    code = row.number("code")
    if code not in range(1, len(CLASSES) + 1):
        codes = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES, 1))
        raise row.error(f"there is no expression code {row.text('code')}", f"The codes are {codes}.")
    return int(code)


def _split(row: Row) -> str:
    prefix = row.text("picture").split("_")[0]
    if prefix not in ("train", "test"):
        raise row.error(f"{row.text('picture')!r} begins with neither train_ nor test_", "Correct the line.")
    return prefix
