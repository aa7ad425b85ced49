"""DiffusionFER: synthetic faces with AffectNet's expression codes, valence and arousal."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.pictures import check_options, find_pictures, picture_examples
from emokd.data.tables.classes import AFFECTNET
from emokd.data.tables.table import read_table
from emokd.data.tables.targets import read_affect, read_codes

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
    files = open_files(directory)
    names = find_pictures(files, rows)
    columns = {
        "expression": read_codes(rows, CLASSES, "expression"),
        "valence_arousal": read_affect(rows).astype(np.float32),
    }
    classes = {"expression": CLASSES}
    return picture_examples("diffusionfer", files, names, columns, classes, options, face_crop="box")
