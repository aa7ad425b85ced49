"""FI (You et al. 2016): photographs in Mikels' eight categories."""

import os
from collections.abc import Mapping

import numpy as np

from emokd.data.described import constant, described
from emokd.data.examples import Examples
from emokd.data.pictures import check_options, class_options
from emokd.data.sources import image_folder, manifest
from emokd.data.tables.classes import MIKELS


def load(directory: str, options: Mapping) -> Examples:
    """Loads FI from `labels.csv` (`path,label[,split]`) with its pictures, or else from class folders.

    Classes are alphabetical: amusement, anger, awe, contentment, disgust, excitement, fear, sadness. The usual
    split of 80 / 5 / 15 percent is not published file by file, so none is prescribed unless the table or the
    folders hold one.

    Args:
      directory: holds the table or the folders (see `manifest.load` and `image_folder.load`).
      options: `table`, `classes` (another list, or order), `min_side`.

    Raises:
      InputError: as in `manifest.load` and `image_folder.load`.
    """
    if options.get("table") or os.path.isfile(os.path.join(directory, manifest.TABLE)):
        return manifest.load(directory, options, name="fi", classes=MIKELS)
    return image_folder.load(directory, options, name="fi", classes=MIKELS)


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of class folders, with black pictures of one pixel: the canvas decides their size."""
    check_options("fi", options, ("table", "classes"))
    classes = class_options(options, MIKELS) or MIKELS
    return described("fi", rows, {"expression": classes}, {"image": constant((1, 1, 3), np.uint8)})
