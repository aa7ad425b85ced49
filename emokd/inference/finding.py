"""Finds the pictures that a command line names: files, folders, archives, patterns, a list on the standard input."""

import dataclasses
import functools
import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import logging
from jaxtyping import UInt8

from emokd.data.decode import decode, read_file
from emokd.data.files.listing import by_suffix, is_picture
from emokd.data.files.store import Archive, Files, Folder
from emokd.errors import InputError

LIST = "-"
"""The name that stands for the list on the standard input."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A picture that was found; it is read only when `read` is called.

    Attributes:
      name: its path; in an archive the archive's path and its path inside.
      read: min_side -> its pixels, see `data.decode.decode`.
    """

    name: str
    read: Callable[[int], UInt8[np.ndarray, "H W 3"]]


def find_pictures(names: Iterable[str], listed: Iterable[str] = ()) -> list[Found]:
    """Finds the named files, and every picture in the named folders and zip archives, sorted by path.

    Folders and archives are listed as in training (`data.files`): by the same suffixes in any letter case, following
    links, without hidden files. Files left out by their suffix are counted in the log. A file that is named itself is
    taken whatever its suffix. A name that does not exist, but has *, ? or [ in it, is a pattern, in which ** stands
    for any number of folders.

    Args:
      names: as on a command line; `LIST` stands for the names in `listed`.
      listed: further names. One that does not exist becomes a picture that cannot be read, so that the rest of a long
        list is still answered.

    Raises:
      InputError: a name outside the list does not exist, or there is no picture at all.
    """
    found: list[Found] = []
    others: list[str] = []
    for name in names:
        if name == LIST:
            for line in listed:
                found += _find(line, others) or [_file(line)]
            continue
        here = _find(name, others)
        if here is None:
            raise InputError(f"There is no file or folder {name[:200]}.")
        found += here
    if not found:
        also = f", only {by_suffix(others)}" if others else ""
        raise InputError(f"There is no picture to predict{also}; name files, or folders that hold some.")
    return found


def _find(name: str, others: list[str]) -> list[Found] | None:
    """The pictures that a name stands for; None where it does not exist. Files of other suffixes go to `others`."""
    # os.path, because pathlib's tests raise for names that are too long or hold a NUL.
    if os.path.isdir(name):
        return list(_of(Folder(name), others))
    if os.path.isfile(name) and name.lower().endswith(".zip"):
        return list(_of(Archive(name), others))
    if os.path.lexists(name):  # a broken link becomes a picture that cannot be read
        return [_file(name)]
    matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) and "\0" not in name else []
    if not matches:
        return None
    return [each for match in matches for each in _find(match, others) or ()]


def _of(files: Files, others: list[str]) -> Iterator[Found]:
    ignored = [name for name in files.names if not is_picture(name)]
    if ignored:
        logging.warning(
            "%s: %d files are no pictures by their suffix: %s.", files.where, len(ignored), by_suffix(ignored)
        )
    others += ignored
    for name in files.pictures():
        yield Found(str(pathlib.Path(files.where) / name), functools.partial(_read, files, name))


def _read(files: Files, name: str, min_side: int) -> UInt8[np.ndarray, "H W 3"]:
    return decode(files.read(name), f"{files.where}/{name}", min_side)


def _file(name: str) -> Found:
    return Found(str(pathlib.Path(name)), functools.partial(read_file, name))
