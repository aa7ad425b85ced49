"""What frozen teachers say, stored once: features of each (example, view), read back instead of computed.

A cache is a folder: `key.json` says what was asked of which teachers, `ids.npy` the examples, and one
`<teacher>.npy` per teacher holds [examples, views + 1, features], the last view being the evaluation view.
What could go wrong, and is refused: other weights, other pixels, other augmentation, other examples.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from emokd.errors import InputError, excerpt

CENTRE = -1
"""The number of the evaluation view in a batch's `view`."""

Key = dict[str, Any]


class TeacherCache:
    """Cached features of some teachers, memory-mapped."""

    def __init__(self, folder: pathlib.Path, key: Key):
        """Opens a cache.

        Args:
          folder: where `write` put it.
          key: what the present run would ask of its teachers.

        Raises:
          InputError: there is no finished cache, or it is stale; what changed is named.
        """
        path = folder / "key.json"
        if not path.exists():
            raise InputError(
                f"config.cache.dir: {folder} holds no finished teacher cache. Make it with "
                f"python -m emokd.cache_teachers --config=... or set config.cache.dir=''."
            )
        stored = json.loads(path.read_text())
        changed = differences(stored, key)
        if changed:
            raise InputError(
                f"The teacher cache {folder} is stale; these changed since it was made: {excerpt(changed)}. "
                f"Make it again with python -m emokd.cache_teachers --config=... in another folder."
            )
        self._views = stored["views"]
        ids = np.load(folder / "ids.npy")
        self._order = np.argsort(ids)
        self._sorted = ids[self._order]
        self._features = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in key["teachers"]}

    def attach(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch with `features/<teacher>` float32 [B, D] for its ids and views."""
        rows = self._rows(batch["id"], batch["mask"])
        views = np.where(batch["view"] == CENTRE, self._views, batch["view"])
        found = {f"features/{n}": np.asarray(f[rows, views], np.float32) for n, f in self._features.items()}
        return {**batch, **found}

    def _rows(self, ids: UInt32[np.ndarray, " B"], mask: Bool[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        if (mask & (self._sorted[places] != ids)).any():  # padding has no id; whatever it finds does not count
            raise InputError("The teacher cache lacks examples of this run; make it again with the same config.data.")
        return np.asarray(self._order[places])


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two cache keys differ, as "teachers.objects.weights (was ..., now ...)"; `wanted` may have less."""
    found: list[str] = []
    for name in wanted:
        was, now = stored.get(name), wanted[name]
        if isinstance(now, Mapping) and isinstance(was, Mapping):
            found += differences(was, now, f"{prefix}{name}.")
        elif was != now:
            found.append(f"{prefix}{name} (was {was}, now {now})")
    return found


def size_in_bytes(key: Key, examples: int, widths: Mapping[str, int]) -> int:
    """Bytes that the cache of so many examples will take on the disk."""
    return sum(examples * (key["views"] + 1) * width * np.dtype(key["dtype"]).itemsize for width in widths.values())


def write(
    folder: pathlib.Path,
    key: Key,
    ids: UInt32[np.ndarray, " N"],
    widths: Mapping[str, int],
    batches: Callable[[int], Iterable[Mapping[str, Any]]],
    features: Callable[[Mapping[str, Any]], Mapping[str, Float[np.ndarray, "B D"]]],
) -> None:
    """Writes a cache; a run that was stopped goes on at the view where it stopped.

    Args:
      folder: the cache; `key.json` is written last, so an unfinished cache is never taken for a finished one.
      key: what is asked of the teachers: `teachers`, `views`, `dtype`, and what else decides the pixels.
      ids: the examples' ids, in the order of `batches`.
      widths: features of each teacher.
      batches: view -> batches of that view, with `mask` False on padding.
      features: a batch to each teacher's features.

    Raises:
      InputError: a folder holds the unfinished cache of another key.
    """
    if len(np.unique(ids)) != len(ids):
        raise InputError("Two pictures have the same id, so their features would be mixed up; rename one of them.")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "unfinished.json"
    done: Key = {"key": key, "views": 0}
    if unfinished.exists():
        done = json.loads(unfinished.read_text())
        if changed := differences(done["key"], json.loads(json.dumps(key))):
            raise InputError(
                f"{folder} holds an unfinished cache of another key ({excerpt(changed)}); use another folder."
            )
    np.save(folder / "ids.npy", ids)
    shape = (len(ids), key["views"] + 1)
    stores = {}
    for name, width in widths.items():
        mode = "r+" if done["views"] else "w+"
        stores[name] = np.lib.format.open_memmap(folder / f"{name}.npy", mode, np.dtype(key["dtype"]), (*shape, width))
    for slot in range(done["views"], key["views"] + 1):
        row = 0
        for batch in batches(CENTRE if slot == key["views"] else slot):
            keep = np.asarray(batch["mask"])
            for name, values in features(batch).items():
                stores[name][row : row + keep.sum(), slot] = values[keep]
            row += int(keep.sum())
        if row != len(ids):
            raise InputError(f"{len(ids) - row} pictures could not be read; a teacher cache needs every one of them.")
        for store in stores.values():
            store.flush()
        unfinished.write_text(json.dumps({"key": key, "views": slot + 1}))
    (folder / "key.json").write_text(json.dumps(key, indent=2))
    unfinished.unlink()
