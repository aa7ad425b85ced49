"""Writes files whole or not at all: after a crash, the old file or the new one is on the disk."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends, and is removed when the block fails.

    The temporary file lies beside `path`, under a name with this process's id, and is synced to the disk before it is
    renamed. A reader therefore finds either the old file or the new one, also after a crash of the machine.

    Args:
      path: the file to write, in a folder that exists.
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
    """Writes a text (as UTF-8) or bytes to `path`, whole or not at all, see `written_whole`."""
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
