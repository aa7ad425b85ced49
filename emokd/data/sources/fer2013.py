"""FER2013 (Goodfellow et al. 2013) as one table, `fer2013.csv`: 48 x 48 grey faces with one of seven expressions."""

import os
from collections.abc import Mapping

import numpy as np
from absl import logging

from emokd.data.division.splits import normalise_split
from emokd.data.examples import Examples
from emokd.data.options import choice
from emokd.data.pictures import check_options
from emokd.data.sources.ferplus import TABLE as VOTES
from emokd.data.tables.classes import AFFECTNET, FER2013
from emokd.data.tables.pixel_table import find_pixel_table, no_pixel_table, pixel_examples, read_pixel_table
from emokd.data.tables.table import Row, check_optional
from emokd.data.tables.targets import read_codes, report_split_like

ORDERS = {"fer2013": FER2013, "affectnet": AFFECTNET[:7]}

_TO_AFFECTNET = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""AffectNet's names of the classes, in FER2013's order."""


def load(directory: str, options: Mapping) -> Examples:
    """Loads FER2013: column `expression`, by the codes 0 to 6; an empty cell is unlabelled.

    The table has the columns `emotion`, `pixels` (2,304 numbers with spaces between) and `Usage` (Training: train,
    PublicTest: validation, PrivateTest: test), in any order, as `fer2013.csv` or Kaggle's `icml_face_data.csv`; without
    `Usage`, as Kaggle's `train.csv`, no split is prescribed. Pictures are kept in memory, 2,304 bytes each. A name is
    made of usage and row, from 0. For FER+'s votes on the same faces see `ferplus`.

    Args:
      directory: holds the table, or is the table.
      options: `table` (another name); `order`: `fer2013` (angry, disgust, fear, happy, sad, surprise, neutral; the
        default) or `affectnet` (neutral, happy, sad, surprise, fear, disgust, anger). `min_side` has no effect.

    Raises:
      InputError: there is no table, a row has another number of pixels or is otherwise wrong, or an unknown option
        value.
    """
    check_options("fer2013", options, ("table", "order"))
    order = choice("order", options.get("order") or "fer2013", tuple(ORDERS))
    table = find_pixel_table(directory, str(options.get("table") or ""))
    if table is None:
        raise no_pixel_table(directory)
    rows, pixels = read_pixel_table(table, ("emotion",))
    check_optional(rows, ("Usage",))
    labels = read_codes(rows, FER2013, "emotion")
    if order == "affectnet":
        places = [AFFECTNET.index(name) for name in _TO_AFFECTNET]
        labels = np.where(labels < 0, labels, np.array(places, np.int32)[labels])
    splits = [_usage(row) for row in rows] if "Usage" in rows[0].cells else None
    if splits is None:
        report_split_like(rows, "Usage")
    if os.path.isfile(os.path.join(os.path.dirname(table), VOTES)):
        logging.info("fer2013: labels are FER2013's own; config.data.source = 'ferplus' takes the votes of %s.", VOTES)
    keys = [f"{split}/{i:05d}" for i, split in enumerate(splits or ["row"] * len(rows))]
    return pixel_examples("fer2013", keys, pixels, {"expression": labels}, {"expression": ORDERS[order]}, splits)


def _usage(row: Row) -> str:
    split = normalise_split(row.text("Usage"))
    if split is None:
        raise row.error(f"there is no usage {row.text('Usage')!r}", "Use Training, PublicTest or PrivateTest.")
    return split
