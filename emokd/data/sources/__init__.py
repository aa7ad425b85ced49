"""Data sets by name. A new one is one file with `load(directory, options) -> Examples` and one line here.

A source may also have `finish(splits, options) -> splits`, for targets that are fitted on the training split,
`load_unlabelled(directory, options) -> Examples | None`, for pictures of the set that have no label and no split, and
`describe(options, rows) -> Examples`, which gives as many made-up examples of the same names, shapes and types without
a file: for compiling what would learn from the set where it is not at hand. Two kinds of names need no line:
"tfds:NAME", a set of TensorFlow Datasets, and "package.module:function", a `load` of your own.
"""

import importlib
import os
from collections.abc import Mapping
from types import ModuleType

from emokd import imports
from emokd.data.examples import Examples
from emokd.data.files.store import find_directory
from emokd.data.tables import consistency
from emokd.errors import InputError, nearest

ON_DISK = {
    "image_folder": "image_folder",
    "manifest": "manifest",
    "ferplus": "ferplus",
    "fer2013": "fer2013",
    "fi": "fi",
    "fi_subset": "fi",
    "emoset": "emoset",
    "emotion6": "emotion6",
    "oasis": "oasis",
    "diffusionfer": "diffusionfer",
    "affectnet": "affectnet",
    "affectnet_2021": "affectnet_2021",
    "rafdb": "rafdb",
    "feature_tables": "feature_tables",
    "ravdess": "ravdess",
    "ravdess_features": "ravdess",
    "vreed": "vreed",
    "biovid": "biovid",
    "affwild2": "affwild2",
}
"""Sets that the user brings, and the module of each; one lies in its directory or `$EMOKD_DATA/<name>`."""

GENERATED = {"painter": "painter"}
"""Sets that need no files."""

ANY = ("image_folder", "manifest", "feature_tables")
"""Formats rather than data sets: the directory decides which data set is read."""

COMPOSED = {"combined": "combined"}
"""Sets that combine others, each with a directory of its own."""

WITHOUT_TARGETS = ("image_folder", "manifest")
"""Sets that can be read for their pictures alone, as extra ones are."""

TFDS = "tfds:"
"""What the name of a set of TensorFlow Datasets begins with."""


def load(source: str, directory: str | None, options: Mapping, min_side: int = 0, *, targets: bool = True) -> Examples:
    """Loads a data set by name.

    Args:
      source: its name, "tfds:NAME" or an import path.
      directory: where it lies; None or empty: `$EMOKD_DATA/<source>`. A function named by an import path gets it
        unchanged.
      options: what the source takes, see its `load`.
      min_side: pictures from disk may be decoded at a reduced size, both sides still at least this; 0 for full
        size. Give the canvas's side: large photographs are then read several times faster.
      targets: whether there must be any; where not, a folder without class folders and a table without targets will do.

    Raises:
      InputError: there is no such source or place, two classes differ in letter case or spaces alone, or the source's
        own complaints.
    """
    options = dict(options)
    if source in GENERATED:
        return _module(source).load(directory, options)
    options["min_side"] = min_side
    if source.startswith(TFDS):
        examples = _module(TFDS).load(source.removeprefix(TFDS), directory, options)
    elif imports.is_path(source):
        examples = _own(source, directory, options)
    else:
        module = _module(source)
        where = directory if source in COMPOSED else find_directory(source, directory)
        pictures_alone = {"targets": False} if source in WITHOUT_TARGETS and not targets else {}
        examples = module.load(where, options, **pictures_alone)
    consistency.check(examples)
    return examples


def load_unlabelled(source: str, directory: str | None, options: Mapping, min_side: int = 0) -> Examples | None:
    """The pictures without labels that a set has beside its splits; None where it has none, as most sources.

    Args:
      source: a data set's name.
      directory: where it lies, as for `load`.
      options: what the source takes.
      min_side: as for `load`.

    Raises:
      InputError: there is no such source or place, or the source's own complaints.
    """
    if not _has_module(source) or not hasattr(module := _module(source), "load_unlabelled"):
        return None
    return module.load_unlabelled(find_directory(source, directory), {**options, "min_side": min_side})


def _own(source: str, directory: str | None, options: Mapping) -> Examples:
    """Loads a data set by a user's function, and checks what it returns."""
    examples = imports.load(source, "config.data.source")(directory, options)
    if not isinstance(examples, Examples):
        raise InputError(
            f"config.data.source: {source} gave {type(examples).__name__}; return emokd.data.examples.Examples."
        )
    return examples


def finish(source: str, splits: Mapping[str, Examples], options: Mapping) -> dict[str, Examples]:
    """Lets the source add targets that it fits on the training split; most sources have none."""
    if not _has_module(source):
        return dict(splits)
    module = _module(source)
    return module.finish(splits, options) if hasattr(module, "finish") else dict(splits)


def describe(source: str, options: Mapping, rows: int) -> Examples | None:
    """As many made-up examples as `rows`, of the names, shapes and types that `load` gives; None where it cannot tell.

    Args:
      source: a data set's name.
      options: what the source takes, see its `load`.
      rows: how many.

    Raises:
      InputError: there is no such source, or an option is wrong.
    """
    if not _has_module(source):
        return None
    module = _module(source)
    return module.describe(dict(options), rows) if hasattr(module, "describe") else None


def family(source: str) -> str:
    """One name for all sources that read the same data set, such as `fi` and `fi_subset`.

    Raises:
      InputError: there is no such source.
    """
    if source.startswith(TFDS):
        return TFDS + source.removeprefix(TFDS).split(":")[0]  # of any version
    return _module(source).__name__ if _has_module(source) else source


def is_of_any_content(source: str) -> bool:
    """Whether the source's directory decides which data set is read, as with `ANY` and users' own functions."""
    return source in ANY or (imports.is_path(source) and not source.startswith(TFDS))


def place(source: str, directory: str | None) -> str:
    """Where a set is expected: `directory`, or the source's folder under `$EMOKD_DATA`. It need not exist."""
    if directory:
        return os.path.expanduser(str(directory))
    return os.path.join(os.path.expanduser(os.environ.get("EMOKD_DATA", "")), source)


def split_options(source: str) -> tuple[str, ...]:
    """The names of the source's options that decide its prescribed splits; most sources have none."""
    return getattr(_module(source), "SPLIT_OPTIONS", ()) if _has_module(source) else ()


def _has_module(source: str) -> bool:
    """Whether a module of this package reads the source by its name, and may define more than `load`."""
    return not source.startswith(TFDS) and not imports.is_path(source)


def _module(source: str) -> ModuleType:
    modules = {**ON_DISK, **GENERATED, **COMPOSED, TFDS: "tfds"}
    if source not in modules:
        raise InputError(
            f"config.data.source: there is no data set {source!r}.{nearest(source, modules)} "
            f"Known: {', '.join(sorted(modules))}."
        )
    return importlib.import_module(f"emokd.data.sources.{modules[source]}")
