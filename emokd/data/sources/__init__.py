"""Data sets by name. A new one is one file with `load(directory, options) -> Examples` and one line here."""

import importlib
from collections.abc import Mapping

from emokd.data.examples import Examples
from emokd.data.files import find_directory
from emokd.errors import InputError, nearest

ON_DISK = {
    "image_folder": "emokd.data.sources.image_folder:load",
    "manifest": "emokd.data.sources.manifest:load",
    "ferplus": "emokd.data.sources.ferplus:load",
    "fi": "emokd.data.sources.fi:load",
    "emoset": "emokd.data.sources.emoset:load",
    "emotion6": "emokd.data.sources.emotion6:load",
    "oasis": "emokd.data.sources.oasis:load",
    "diffusionfer": "emokd.data.sources.diffusionfer:load",
}
"""Sets that the user brings: they lie in `data.dir`, else in `$EMOKD_DATA/<name>`."""


def load_from_disk(name: str, options: Mapping, directory: str | None = None) -> Examples:
    """Loads the data set `name` from `directory`, else from `$EMOKD_DATA/<name>`.

    Raises:
      InputError: there is no such source or no such place, or the source's own complaints.
    """
    if name not in ON_DISK:
        raise InputError(
            f"There is no data set {name!r} for data.source.{nearest(name, ON_DISK)} Known: {', '.join(sorted(ON_DISK))}."
        )
    module, attribute = ON_DISK[name].split(":")
    return getattr(importlib.import_module(module), attribute)(find_directory(name, directory), options)
