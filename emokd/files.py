"""Files that are there whole, and on the disk, or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its place at `path` when the block ends, and leaves nothing where it fails.

    It is beside `path`, under a name of this process alone, and on the disk before it takes its place: whoever looks,
    also after a crash of the machine, finds the file of before or the new one.

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
    """Writes a text, in UTF-8, or bytes, see `written_whole`."""
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
