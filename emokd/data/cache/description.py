"""Reads and writes `cache.json`: what a cache holds, and the checksums by which damage to its files is noticed.

    key         what was asked of which teachers
    widths      features of each teacher, in their order
    blocks      {"bytes": B, "features": [...], "index": [...]}: the CRC-32 of every B bytes of the two files
    sha256      of all this, so that a changed digit is noticed

Caches of emokd 0.1 have neither `blocks` nor `sha256`, and are read without them.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from emokd.errors import InputError

DESCRIPTION, INDEX, FEATURES = "cache.json", "index.npy", "features.npy"

BLOCK = 1 << 18
"""Bytes of a block: small enough that a batch of random rows reads few bytes in excess, large enough that 1 GB has
3,815 checksums only. [ours]"""


def as_text(key: Mapping[str, Any], widths: Mapping[str, int], folder: pathlib.Path) -> str:
    """The text of `cache.json` for the files in the folder, which are read once for their checksums."""
    blocks = {"bytes": BLOCK, "features": checksums(folder / FEATURES), "index": checksums(folder / INDEX)}
    content = {"key": dict(key), "widths": dict(widths), "blocks": blocks}
    return json.dumps({**content, "sha256": _digest(content)}, indent=2)


def checksums(path: pathlib.Path) -> list[int]:
    """The CRC-32 of each block of a file."""
    with path.open("rb") as file:
        return [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")]


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object from a file in a cache's folder.

    Raises:
      InputError: the file cannot be read, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("key"), dict):
        raise damaged(path.parent, f"{path.name} does not say what was asked of which teachers")
    return content


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """The content of a finished cache's `cache.json`.

    Raises:
      InputError: it is damaged.
    """
    content = read_object(folder / DESCRIPTION)
    stored = content.pop("sha256", None)
    if stored is not None and stored != _digest(content):
        raise damaged(folder, f"{DESCRIPTION} is not what was written, its sha256 differs")
    widths, views = content.get("widths"), content["key"].get("views")
    if not isinstance(widths, dict) or not widths or not all(_is_count(width) for width in widths.values()):
        raise damaged(folder, f"{DESCRIPTION} does not say how many features each teacher has")
    if not _is_count(views):
        raise damaged(folder, f"{DESCRIPTION} does not say how many views there are")
    blocks = content.get("blocks", {"bytes": BLOCK, "features": [], "index": []})
    sums = [blocks.get("features"), blocks.get("index")] if isinstance(blocks, dict) else []
    if not sums or not _is_count(blocks.get("bytes")) or not all(isinstance(each, list) for each in sums):
        raise damaged(folder, f"{DESCRIPTION} has no readable checksums")
    return {**content, "blocks": blocks}


def damaged(folder: pathlib.Path, why: str) -> InputError:
    """The error for a damaged cache; `why` says what is wrong with it."""
    return InputError(f"The teacher cache {folder} is damaged ({why}); make it again in another folder.")


class Blocks:
    """The blocks of a file. Each is compared with its checksum before its first use.

    Args:
      path: the file.
      sums: the CRC-32 of each block; empty for a cache without checksums, of which nothing is compared.
      size: bytes of a block.

    Raises:
      InputError: there are not as many blocks as checksums, or the file cannot be read.
    """

    def __init__(self, path: pathlib.Path, sums: Sequence[int], size: int):
        self._path, self._sums, self._size = path, sums, size
        self._unseen = np.ones(len(sums), bool)
        if not len(sums):
            return
        try:
            there = path.stat().st_size
            if len(sums) != -(-there // size):
                raise damaged(path.parent, f"{path.name} has {there:,} bytes, which is not what was written")
            self._bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise damaged(path.parent, f"{path.name} cannot be read: {error}") from error

    def check(self, first: Int[np.ndarray, " R"], last: Int[np.ndarray, " R"]) -> None:
        """Compares the blocks of R byte ranges with their checksums, except those that have been compared before.

        Args:
          first: the first byte of each range.
          last: the last byte of each range, inclusive.

        Raises:
          InputError: a block differs from its checksum.
        """
        if not self._unseen.any():
            return
        for begin, end in zip((first // self._size).tolist(), (last // self._size).tolist(), strict=True):
            for block in range(begin, end + 1):
                if self._unseen[block]:
                    if zlib.crc32(self._bytes[block * self._size : (block + 1) * self._size].data) != self._sums[block]:
                        raise damaged(
                            self._path.parent,
                            f"{self._path.name} is not what was written, about byte {block * self._size:,}",
                        )
                    self._unseen[block] = False

    def check_all(self) -> None:
        """Compares the whole file, see `check`."""
        if len(self._sums):
            self.check(np.array([0]), np.array([len(self._bytes) - 1]))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
