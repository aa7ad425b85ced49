"""DiffusionFER: synthetic faces with AffectNet's expression codes, valence and arousal."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.classes import AFFECTNET
from emokd.data.examples import Examples
from emokd.data.files import open_files
from emokd.data.pictures import check_options, find_pictures, picture_examples
from emokd.data.tables import Row, read_table, unique

TABLE = "labels.csv"
CLASSES = AFFECTNET[:7]


def load(directory: str, options: Mapping) -> Examples:
    """Loads DiffusionFER: columns `expression` (codes 0 to 6, no contempt) and `valence_arousal`.

    The labels are those of the table; the folder names are prompts and differ from them.

    Args:
      directory: holds `labels.csv` (path, valence, arousal, expression) and the pictures.
      options: `min_side` (see `picture_examples`).

    Raises:
      InputError: the table or a picture is missing, or a row is wrong.
    """
    check_options("diffusionfer", options, ())
    rows = read_table(os.path.join(directory, TABLE), required=("path", "valence", "arousal", "expression"))
    unique(rows, "path")
    files = open_files(directory)
    names = find_pictures(files, rows)
    columns = {
        "expression": np.array([_code(row) for row in rows], np.int32),
        "valence_arousal": np.array(
            [[row.number("valence", -1, 1), row.number("arousal", -1, 1)] for row in rows], np.float32
        ),
    }
    classes = {"expression": CLASSES}
    return picture_examples("diffusionfer", files, names, columns, classes, options, face_crop="box")


def _code(row: Row) -> int:
    code = row.number("expression")
    if code not in range(len(CLASSES)):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise row.error(f"there is no expression code {row.text('expression')}", f"The codes are {known}.")
    return int(code)
