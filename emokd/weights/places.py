"""Finds weights at their path, or under the folder of data and weights ($EMOKD_DATA)."""

import os
import pathlib

from emokd.errors import InputError


def find_file(path: str, key: str) -> pathlib.Path:
    """The file or folder at `path`, or at `path` under $EMOKD_DATA.

    Raises:
      InputError: it is in neither place; `key` says which setting asked for it.
    """
    places = [pathlib.Path(path)]
    if os.environ.get("EMOKD_DATA"):
        places.append(pathlib.Path(os.environ["EMOKD_DATA"]) / path)
    for place in places:
        if place.exists():
            return place
    raise InputError(f"{key}: there is no {' nor '.join(map(str, places))}. Correct the path, or set EMOKD_DATA.")
