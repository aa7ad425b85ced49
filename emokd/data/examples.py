"""`Examples`, which every data source returns: names, targets in memory, and readers of inputs."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from emokd.errors import InputError

_READERS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Reads an input that is an array in memory; a batch of it costs one copy.

    Attributes:
      array: [N, ...]; float64 where float32 would lose information, such as a clock's differences.
      places: the row of each example, or None where example i is row i.
      names: the names of the last axis's entries, where they are known.
      reference: converts rows to float32, see `emokd.data.reference`; None rounds them directly.
    """

    array: np.ndarray
    places: np.ndarray | None = None
    names: tuple[str, ...] = ()
    reference: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, i: int) -> np.ndarray:
        """The row of example i."""
        return self._in_batch(self.array[i if self.places is None else self.places[i]])

    def many(self, indices: np.ndarray) -> np.ndarray:
        """The rows of these examples, [len(indices), ...]."""
        return self._in_batch(self.array[indices if self.places is None else self.places[indices]])

    def select(self, indices: np.ndarray) -> "Rows":
        """Reads the examples at `indices`, in that order."""
        return dataclasses.replace(self, places=indices if self.places is None else self.places[indices])

    def raw(self) -> np.ndarray:
        """The rows of all examples, in the array's own dtype."""
        return self.array if self.places is None else self.array[self.places]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of what is read: float32 for floating-point arrays, else the array's own."""
        floating = self.reference is not None or np.issubdtype(self.array.dtype, np.floating)
        return np.dtype(np.float32) if floating else self.array.dtype

    def _in_batch(self, rows: np.ndarray) -> np.ndarray:
        return rows.astype(self.dtype) if self.reference is None else self.reference(rows)


@dataclasses.dataclass(frozen=True)
class Examples:
    """N named examples: target columns in memory, inputs read on demand.

    Attributes:
      name: the data set's name, for messages and reports.
      keys: N stable, unique names, such as a path inside the data set. An example's id, its place in the
        order of a division and its augmentation are computed from its key alone.
      columns: targets. `expression` int32 [N] (`labels.UNLABELLED` where there is none) or `votes` float32 [N, C]
        (rows sum to 1, or all 0 where there is none), `valence_arousal` float32 [N, 2] (NaN where there is
        none), and any further classifying task under its own name, int32 [N].
      classes: class names of each classifying column, in order of their ids (`votes` counts as `expression`).
      inputs: readers by modality. `inputs["image"](i)` gives uint8 RGB [H, W, 3] of any size;
        `inputs["physiology"]` and `inputs["audio"]` float32 traces. `Rows` where it is an array in memory.
      content: `content(i)` gives a digest of the example's raw bytes, for finding duplicates: within this set it is
        equal for equal bytes and for no others. It may depend on the rest of the set.
      splits: the split that the data set itself prescribes for each example, or None; empty texts where a part of a
        combined set prescribes none.
      groups: subject (or video) of each example, for subject-disjoint folds, or None.
      face_crop: how the pictures' faces were cut out, one of `face_crop.CROPS`, or "" where they are no faces or it
        is unknown. A model that was trained on them needs pictures that are cut out in the same way.
      pixels: `pixels(i, min_side)` decodes the example's picture file, possibly reduced as long as both sides are at
        least `min_side` (0: full size), for finding copies whose bytes differ; None where only `content` can be
        compared.
      checksum: `checksum(i)` gives a checksum of the example's raw bytes alone, "" where they cannot be read, for
        noticing data that changed between runs. None where `content` serves as that.
    """

    name: str
    keys: Sequence[str]
    columns: Mapping[str, np.ndarray]
    classes: Mapping[str, tuple[str, ...]]
    inputs: Mapping[str, Callable[[int], np.ndarray]]
    content: Callable[[int], str]
    splits: np.ndarray | None = None
    groups: np.ndarray | None = None
    face_crop: str = ""
    pixels: Callable[[int, int], np.ndarray] | None = None
    checksum: Callable[[int], str] | None = None

    def __post_init__(self):
        if not self.keys:
            raise InputError(f"The data set {self.name!r} is empty.")
        for column, values in self.columns.items():
            if len(values) != len(self.keys):
                raise InputError(f"{self.name}: column {column!r} has {len(values)} rows, not {len(self.keys)}.")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def ids(self) -> np.ndarray:
        """uint32 [N]: a hash of each key, the same wherever the example appears."""
        return np.array([stable_hash(key) for key in self.keys], np.uint32)

    @property
    def checks(self) -> np.ndarray:
        """uint32 [N]: a second hash of each key, which distinguishes examples of the same id."""
        return np.array([stable_hash(key, salt="check") for key in self.keys], np.uint32)

    def require_groups(self) -> np.ndarray:
        """The group of each example.

        Raises:
          InputError: there are none.
        """
        if self.groups is None:
            raise InputError(f"{self.name} does not say which subject (group) its examples are of.")
        return self.groups

    def contents(self) -> list[str]:
        """The digest of each example's raw bytes, to compare within this set."""
        return self._ask_all(self.content)

    def checksums(self) -> list[str]:
        """A checksum of each example's raw bytes, to compare with an earlier run's; reads the files of a folder."""
        return self._ask_all(self.checksum or self.content)

    def _ask_all(self, ask: Callable[[int], str]) -> list[str]:
        """`ask(i)` for every example, by several threads, since a network disk answers requests in parallel."""
        chunks = np.array_split(np.arange(len(self)), _READERS)
        with ThreadPoolExecutor(_READERS) as pool:
            texts = pool.map(lambda chunk: [ask(i) for i in chunk.tolist()], chunks)
            return [text for chunk in texts for text in chunk]

    def select(self, indices: np.ndarray) -> "Examples":
        """The examples at `indices`, in that order."""
        indices = np.asarray(indices)

        def reindex(read):
            return read.select(indices) if isinstance(read, Rows) else lambda i, *rest: read(int(indices[i]), *rest)

        return dataclasses.replace(
            self,
            keys=[self.keys[i] for i in indices],
            columns={name: values[indices] for name, values in self.columns.items()},
            inputs={name: reindex(read) for name, read in self.inputs.items()},
            content=reindex(self.content),
            pixels=None if self.pixels is None else reindex(self.pixels),
            checksum=None if self.checksum is None else reindex(self.checksum),
            splits=None if self.splits is None else self.splits[indices],
            groups=None if self.groups is None else self.groups[indices],
        )


def stable_hash(text: str, salt: Any = "") -> int:
    """A 32-bit hash that is the same in every process and release (Python's own is not)."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{text}".encode(), digest_size=4).digest(), "little")
