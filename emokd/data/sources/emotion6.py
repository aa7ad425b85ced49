"""Emotion6 / EmotionROI (Peng et al. 2015): 1,980 photographs in six categories."""

import os
from collections.abc import Mapping

from emokd.data.examples import Examples
from emokd.data.sources import image_folder, manifest
from emokd.data.tables.classes import EMOTION6


def load(directory: str, options: Mapping) -> Examples:
    """Loads Emotion6 from six class folders, or from a `labels.csv` (`path,label[,split]`).

    Classes are alphabetical: anger, disgust, fear, joy, sadness, surprise. Tested on generated files only.

    Args:
      directory: holds the table or the folders (see `manifest.load` and `image_folder.load`).
      options: `table`, `classes` (another list, or order), `min_side`.

    Raises:
      InputError: as in `manifest.load` and `image_folder.load`.
    """
    if options.get("table") or os.path.isfile(os.path.join(directory, manifest.TABLE)):
        return manifest.load(directory, options, name="emotion6", classes=EMOTION6)
    return image_folder.load(directory, options, name="emotion6", classes=EMOTION6)
