"""Checksums of a checkpoint's files, stored with it, so that a changed bit is noticed before anything is read.

Orbax checks its own indices, not the arrays: a flipped bit gives another network, in silence. [ours]
Cost: a checkpoint is read once more when it is saved (in the background) and once when a run begins with it, at the
speed of CRC-32: about a second per GB. Checksums show damage; they do not protect against intent.
"""

import json
import pathlib
import zlib

from emokd.files import write_whole

CHECKSUMS = "checksums.json"
"""A file in each checkpoint: the CRC-32 of every other file in its subfolders, by path."""

_NEEDED = ("state/_METADATA", "state/manifest.ocdbt", "best/metadata")
_BLOCK = 1 << 20
_MARKS = "commit_success.txt"  # orbax writes these marks at different moments on different file systems


def write(folder: pathlib.Path) -> None:
    """Stores the checksums of a checkpoint that is complete but for its final renaming."""
    write_whole(folder / CHECKSUMS, json.dumps({name: _checksum(folder / name) for name in _files(folder)}, indent=1))


def are_known(folder: pathlib.Path) -> bool:
    """Whether a checkpoint has checksums; those of emokd 0.1 have none."""
    return (folder / CHECKSUMS).is_file()


def damage(folder: pathlib.Path) -> str:
    """Describes the first damage in a checkpoint; empty where there is none.

    Without checksums it notices only missing files.
    """
    try:
        if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
            return f"it lacks {missing[0]}"
        if not are_known(folder):
            return ""
        stored = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        there = _files(folder)
        if missing := [name for name in stored if name not in there]:
            return f"it lacks {missing[0]}"
        for name, checksum in stored.items():
            if _checksum(folder / name) != checksum:
                return f"{name} is not what was written (its checksum differs)"
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        return f"{getattr(error, 'filename', None) or CHECKSUMS} cannot be read ({error})"
    return ""


def _files(folder: pathlib.Path) -> list[str]:
    """The files in the checkpoint's subfolders; those at its top are orbax's own and hold nothing of the run."""
    inside = (path for path in folder.glob("*/**/*") if path.is_file() and path.name != _MARKS)
    return sorted(path.relative_to(folder).as_posix() for path in inside)


def _checksum(path: pathlib.Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
