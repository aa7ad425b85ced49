"""Locks folders: one process, or one run of several processes, writes to a folder at a time.

`filelock` holds the lock by flock, which the kernel releases when the process ends, so that a killed one leaves none
behind. On a file system without flock the lock is a marker file with host and process; a marker of this host whose
process is gone is taken over. A file beside the lock says who holds it, for the message.
"""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import socket
import warnings
from collections.abc import Iterator

import filelock
from absl import logging

from emokd.errors import InputError
from emokd.files import write_whole
from emokd.training.distributed import in_first_process

LOCK, OWNER = ".running.lock", ".running.json"

PATIENCE = 0.2
"""Seconds to wait for a lock, in case its holder is just ending."""

_NO_FLOCK = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Makes `folder` and holds its lock; of several processes, process 0 does so for all.

    Afterwards the lock is gone, and so is the folder where it was made here and nothing was written.

    Raises:
      InputError: another process holds it (host, process and since when are named), or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        in_first_process(lambda: stack.enter_context(_held(folder)))
        yield


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[None]:
    try:
        made = _make(folder)
        lock = _acquire(folder)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise InputError(
            f"{folder} cannot be written ({error.strerror}: {error.filename or folder}). Give a folder that can."
        ) from error
    try:
        _write_owner(folder)
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        if not isinstance(lock, filelock.SoftFileLock):  # that one removes its own file
            # Before the release: a process that waits for this file then finds it unlinked, and tries again.
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        for path in reversed(made):
            with contextlib.suppress(OSError):  # something is in it
                path.rmdir()


def owner(folder: pathlib.Path) -> dict:
    """Who holds the lock, or held it and was killed: `host`, `process`, `since`; empty where that is not recorded."""
    try:
        record = json.loads((folder / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and {"host", "process", "since"} <= record.keys() else {}


def _make(folder: pathlib.Path) -> list[pathlib.Path]:
    """Makes the folder; returns those that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _acquire(folder: pathlib.Path) -> filelock.BaseFileLock:
    lock: filelock.BaseFileLock = filelock.FileLock(folder / LOCK)
    before, there = owner(folder), (folder / LOCK).exists()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock warns that it falls back to a marker
            try:
                lock.acquire(timeout=PATIENCE)
            except OSError as error:
                if isinstance(error, filelock.Timeout) or error.errno not in _NO_FLOCK:
                    raise
                if not there:
                    (folder / LOCK).unlink(missing_ok=True)  # else it would be taken for a marker
                lock = filelock.SoftFileLock(folder / LOCK)
                lock.acquire(timeout=PATIENCE)
    except filelock.Timeout as error:
        raise InputError(_in_use(folder, owner(folder))) from error
    if before:
        logging.warning(
            "%s: the lock of process %s on %s, of %s, is taken over: that process ended without removing it.",
            *(folder, before.get("process"), before.get("host"), before.get("since")),
        )
    return lock


def _in_use(folder: pathlib.Path, by: dict) -> str:
    who = f"process {by['process']} on {by['host']}, since {by['since']}" if by else "another process"
    remedy = "Wait for it, stop it, or give another folder."
    return f"{folder} is in use by {who}. {remedy}"


def _write_owner(folder: pathlib.Path) -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    entry = {"host": socket.gethostname(), "process": os.getpid(), "since": now}
    write_whole(folder / OWNER, json.dumps(entry))
