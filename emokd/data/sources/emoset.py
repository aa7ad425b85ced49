"""EmoSet-118K (Yang et al. 2023): photographs in Mikels' eight categories, in EmoSet's own order."""

import json
import os
from collections.abc import Mapping

import numpy as np

from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.pictures import check_options, picture_examples
from emokd.data.tables.classes import EMOSET
from emokd.data.tables.text import read_text
from emokd.errors import InputError, nearest

LISTS = {"train": "train.json", "validation": "val.json", "test": "test.json"}


def load(directory: str, options: Mapping) -> Examples:
    """Loads EmoSet from its lists and pictures.

    The released layout as we know it: `train.json`, `val.json` and `test.json`, each a list of
    [emotion, image path, annotation path], beside `image/<emotion>/*.jpg` (or `image.zip`). The annotation paths
    are not used. Written from that description and tested on generated files only, not on the real data.

    Args:
      directory: holds the lists and the pictures.
      options: `min_side` (see `picture_examples`).

    Raises:
      InputError: a list or a picture is missing, an entry is malformed or repeated; the message names the list
        and the entry's position.
    """
    check_options("emoset", options, ())
    files = open_files(directory, stem="image")
    names: list[str] = []
    labels, splits = [], []
    where_listed: dict[str, str] = {}
    for split, file_name in LISTS.items():
        path = os.path.join(directory, file_name)
        for position, entry in enumerate(_read_list(path)):
            where = f"{path}, entry {position}"
            if not (isinstance(entry, list) and len(entry) >= 2 and all(isinstance(cell, str) for cell in entry[:2])):
                raise InputError(f"{where}: {entry!r} is not [emotion, image path, annotation path]. Correct the list.")
            emotion, picture = entry[:2]
            if emotion not in EMOSET:
                raise InputError(
                    f"{where}: there is no emotion {emotion!r}.{nearest(emotion, EMOSET)} Known: {', '.join(EMOSET)}."
                )
            name = files.find(picture)
            if name is None:
                raise InputError(f"{where}: {picture!r} is not in {files.where}. Restore the file or remove the entry.")
            if name in where_listed:
                raise InputError(f"{where}: {picture!r} is also {where_listed[name]}. Keep one of the two entries.")
            where_listed[name] = where
            names.append(name)
            labels.append(EMOSET.index(emotion))
            splits.append(split)
    return picture_examples(
        "emoset",
        files,
        names,
        {"expression": np.array(labels, np.int32)},
        {"expression": EMOSET},
        options,
        splits=splits,
    )


def _read_list(path: str) -> list:
    if not os.path.exists(path):
        raise InputError(f"The list {path} does not exist. EmoSet needs {', '.join(LISTS.values())}.")
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable as JSON: {error}. Download it again.") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} is not a list of entries. Download it again.")
    return entries
