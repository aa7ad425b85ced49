"""Atomic writes: a file is written whole and synced to the disk, or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends, and is removed where the block fails.

    The temporary file lies beside `path`, under a name that only this process uses, and is synced to the disk before it
    replaces `path`. So a reader finds either the old file or the new one, even after a crash of the machine.

    Args:
      path: in a folder that exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: pathlib.Path, content: str | bytes | memoryview) -> None:
    """Writes text, in UTF-8, or bytes, whole or not at all; see `written_whole`."""
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
