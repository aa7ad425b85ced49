"""Reads frozen teachers' features of each (example, view) from a cache, instead of computing them in the step.

A cache is a folder of three files. `writer` makes them, `cache.json` last: a folder that has it is complete.

    cache.json      what was asked of which teachers (the key), how many features each of them has, and checksums
    index.npy       uint64 [N], the examples' long ids, ascending
    features.npy    [N, views + 1, D], the teachers' features side by side, the last view being the evaluation view

A cache of other weights, pixels, augmentation or examples than the run's is refused, and so is a damaged one. Each
block of `features.npy` is compared with its checksum when it is first read, which costs about a second per GB, once.
Caches of emokd 0.1 have no checksums.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Int, UInt32, UInt64

from emokd.data import npy
from emokd.data.cache.description import DESCRIPTION, FEATURES, INDEX, Blocks, damaged, read_description
from emokd.errors import InputError, excerpt, nearest

CENTRE = -1
"""The number of the evaluation view in a batch's `view`."""

FORMAT = 3
"""Part of every key: caches of another layout, or of pictures that were resized otherwise, are stale."""

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
"""The NumPy dtype that each is stored as: NumPy's file format lacks bfloat16, whose bits are stored as integers."""

Key = dict[str, Any]


class TeacherCache:
    """Cached features of some teachers, memory-mapped."""

    def __init__(self, folder: pathlib.Path, key: Key):
        """Opens a cache.

        Args:
          folder: the finished cache.
          key: what the present run needs of which teachers. The cache may hold more teachers and more examples.

        Raises:
          InputError: there is no finished cache, it is damaged, or it is stale; what changed is named.
        """
        if not (folder / DESCRIPTION).exists():
            raise InputError(
                f"config.cache.dir: {folder} holds no finished teacher cache. Make it with "
                f"python -m emokd.cache_teachers --config=... or set config.cache.dir=''."
            )
        stored = read_description(folder)
        changed = differences(stored["key"], key)
        if changed:
            raise InputError(
                f"The teacher cache {folder} is stale; these changed since it was made: {excerpt(changed)}. "
                f"Restore that, or make it again with python -m emokd.cache_teachers --config=... in another folder."
            )
        self._views = stored["key"]["views"]
        ends = np.cumsum(list(stored["widths"].values())).tolist()
        starts = dict(zip(stored["widths"], [0, *ends[:-1]], strict=True))
        self._columns = {name: slice(starts[name], starts[name] + stored["widths"][name]) for name in key["teachers"]}
        blocks = stored["blocks"]
        index_blocks = Blocks(folder / INDEX, blocks["index"], blocks["bytes"])
        self._blocks = Blocks(folder / FEATURES, blocks["features"], blocks["bytes"])
        index_blocks.check_all()
        self._index, _ = _open(folder / INDEX, "<u8")
        features, self._start = _open(folder / FEATURES, STORED[key["dtype"]])
        expected = (len(self._index), self._views + 1, ends[-1])
        if self._index.ndim != 1 or features.shape != expected:
            raise damaged(folder, f"{FEATURES} has the shape {list(features.shape)}, not {list(expected)}")
        self._row_bytes = features.dtype.itemsize * features[0].size
        self._features = features.view(DTYPES[key["dtype"]])

    def attach(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `features/<teacher>` [B, D] to a batch, looked up by id and view, in the dtype that is stored.

        Raises:
          InputError: the cache lacks an example of the batch, or is damaged.
        """
        views = np.where(batch["view"] == CENTRE, self._views, batch["view"])
        rows = self._rows(batch)
        begin = self._start + rows * self._row_bytes
        self._blocks.check(begin, begin + self._row_bytes - 1)
        features = self._features[rows, views]
        return {**batch, **{f"features/{name}": features[:, columns] for name, columns in self._columns.items()}}

    def _rows(self, batch: Mapping[str, np.ndarray]) -> Int[np.ndarray, " B"]:
        wanted = long_ids(batch["id"], batch["check"])
        rows = np.minimum(np.searchsorted(self._index, wanted), len(self._index) - 1)
        # Padding rows have no id: what the search returns for them is not used.
        if (batch["mask"] & (self._index[rows] != wanted)).any():
            raise InputError("The teacher cache lacks examples of this run; make it again with the same config.data.")
        return rows


def _open(path: pathlib.Path, dtype: str) -> tuple[np.memmap, int]:
    """The array in a file, memory-mapped, and the offset of its first number in bytes."""
    try:
        with path.open("rb") as file:
            shape, stored = npy.header(file, path.stat().st_size)
            start = file.tell()
        if stored != np.dtype(dtype) or 0 in shape:
            raise ValueError(f"it holds {list(shape)} numbers of type {stored}")
        return np.memmap(path, stored, "r", start, shape), start
    except (OSError, ValueError) as error:
        raise damaged(path.parent, f"{path.name}: {error}") from error


def long_ids(ids: UInt32[np.ndarray, " N"], checks: UInt32[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    """64-bit ids: the id above, the second hash below. Among 100,000 examples two are likely to share the 32-bit id."""
    return (ids.astype(np.uint64) << np.uint64(32)) | checks.astype(np.uint64)


def check_dtype(name: str) -> str:
    """Returns the name of a dtype after checking that features can be stored in it.

    Raises:
      InputError: it is not one of `DTYPES`.
    """
    if name not in DTYPES:
        raise InputError(f"config.cache.dtype is {name!r}.{nearest(name, DTYPES)} Choose one of {', '.join(DTYPES)}.")
    return name


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], *, less: bool = True, prefix: str = ""
) -> list[str]:
    """Where two keys differ, as "teachers.objects.weights (was ..., now ...)".

    Args:
      stored: the key of a cache.
      wanted: the key of the present run.
      less: whether `wanted` may lack entries of `stored`, such as a teacher.
      prefix: put before each name.
    """
    changes: list[str] = []
    for name in wanted if less else {**stored, **wanted}:
        was, now = stored.get(name), wanted.get(name)
        if isinstance(now, Mapping) and isinstance(was, Mapping):
            changes += differences(was, now, less=less, prefix=f"{prefix}{name}.")
        elif was != now:
            changes.append(f"{prefix}{name} (was {_shown(was)}, now {_shown(now)})")
    return changes


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "there"
    return "absent" if value is None else str(value)
