"""Writes files whole or not at all: after a crash, the old file or the new one is on the disk."""

import contextlib
import hashlib
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
