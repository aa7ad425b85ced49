"""Writes files whole or not at all: after a crash, the old file or the new one is on the disk.

What is being written lies beside its place under a temporary name, and its process holds a lock (flock) on it, which
the kernel releases when the process ends. So the next write to the same place can tell what a killed process left
behind from what another one is writing, and removes the first alone. [ours]
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from absl import logging

TEMPORARY, REPLACED = ".tmp", ".old"
"""Suffixes of what is being written, and of a folder in whose place another one is about to be."""


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends, and is removed when the block fails.

    The temporary file lies beside `path`, and is synced to the disk before it is renamed. A reader therefore finds
    either the old file or the new one, also after a crash of the machine. What killed processes left of such writes is
    removed.

    Args:
      path: the file to write, in a folder that exists.
    """
    clear_leftovers(path)
    file = _new_file(path)
    temporary = pathlib.Path(file.name)
    try:
        with file:
            yield file
            sync(file)
            temporary.replace(path)  # while it is locked
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def folder_written_whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes a temporary folder that replaces `folder` when the block ends, and is removed when the block fails.

    A folder cannot be replaced in one step. A process that is killed between the two leaves the old folder under
    another name; the next write to the same place puts it back first.

    Args:
      folder: the folder to write; its parents are made. What is there is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    temporary, old = _beside(folder, TEMPORARY), _beside(folder, REPLACED)
    with contextlib.ExitStack() as locks:
        try:
            temporary.mkdir()
            locks.enter_context(_locked(temporary))
            yield temporary
            if folder.exists():
                locks.enter_context(_locked(folder))
                folder.rename(old)
            temporary.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            for left in (temporary, old):
                shutil.rmtree(left, ignore_errors=True)


def sync(file: BinaryIO) -> None:
    """Waits until what has been written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def clear_leftovers(path: pathlib.Path) -> None:
    """Removes what killed processes left of their writes to `path`, and says so in the log.

    What another process may still be writing stays, and so does everything where the file system has no locks. A folder
    that was about to be replaced is put back where nothing has taken its place.
    """
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+({TEMPORARY}|{REPLACED})")
    try:
        with os.scandir(path.parent) as entries:
            found = sorted(path.with_name(entry.name) for entry in entries if ours.fullmatch(entry.name))
    except OSError:
        return  # writing to `path` will say what is wrong
    for left in found:
        with contextlib.suppress(OSError), _locked(left) as is_held:
            if not is_held:
                continue
            if left.suffix == REPLACED and not path.exists():
                left.rename(path)
                logging.warning("%s is put back: a process was killed while it replaced it.", path)
            else:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
                logging.warning("%s is removed: a process was killed while it wrote %s.", left, path)


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{suffix}")


def _new_file(path: pathlib.Path) -> BinaryIO:
    while True:
        file = _beside(path, TEMPORARY).open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another write to the same place took it for a leftover before it was locked


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[bool]:
    """Holds the lock of a file or a folder during the block; yields whether it could be had."""
    # A network file system gives the lock of a file to those alone who may write it; a folder is opened to be read.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process holds it, or the file system has no locks
            is_held = False
        else:
            is_held = True
        yield is_held
    finally:
        os.close(descriptor)


def write_whole(path: pathlib.Path, content: str | bytes | memoryview) -> None:
    """Writes a text (as UTF-8) or bytes to `path`, whole or not at all, see `written_whole`."""
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_with_sum(path: pathlib.Path, content: str) -> None:
    """Writes a text as `write_whole` does, and before it its SHA-256 beside it, in the format of `sha256sum`.

    Until the text is replaced, the sum of the one before is there too, so that a crash between the two loses neither.
    """
    sums = [hashlib.sha256(content.encode()).hexdigest()]
    if path.is_file():
        sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
    write_whole(_sum_of(path), "".join(f"{each}  {path.name}\n" for each in dict.fromkeys(sums)))
    write_whole(path, content)


def has_changed(path: pathlib.Path) -> bool:
    """Whether a file is not what `write_with_sum` wrote; False where it has no sum."""
    try:
        sums = _sum_of(path).read_text(encoding="utf-8", errors="replace").split()
        return hashlib.sha256(path.read_bytes()).hexdigest() not in sums
    except OSError:
        return False


def _sum_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.sha256")
