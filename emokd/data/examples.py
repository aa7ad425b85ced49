"""Examples: what every data source gives."""

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
      array: [N, ...]. float64 where float32 would round what matters away, such as a clock's differences.
      places: the row of each example, or None where example i is row i.
      names: of the last axis's entries, where they are known.
      reference: makes rows float32, see `emokd.data.reference`; None to round them as they are.
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
        """The rows of all examples, as they are held."""
        return self.array if self.places is None else self.array[self.places]

    @property
    def dtype(self) -> np.dtype:
        """Of what is read: floating numbers are float32."""
        floating = self.reference is not None or np.issubdtype(self.array.dtype, np.floating)
        return np.dtype(np.float32) if floating else self.array.dtype

    def _in_batch(self, rows: np.ndarray) -> np.ndarray:
        return rows.astype(self.dtype) if self.reference is None else self.reference(rows)


@dataclasses.dataclass(frozen=True)
class Examples:
    """N named examples: target columns in memory, inputs read on demand.

    Attributes:
      name: the data set's name, for messages and reports.
      keys: N stable, unique names, such as a path inside the data set. An example's id, its split and
        its augmentation hang on its key and on nothing else.
      columns: targets. `expression` int32 [N] (`labels.UNLABELLED` where there is none) or `votes` float32 [N, C]
        (rows sum to 1, or all 0 where there is none), `valence_arousal` float32 [N, 2] (NaN where there is
        none), and any further classifying task under its own name, int32 [N].
      classes: class names of each classifying column, in order of their ids (`votes` counts as `expression`).
      inputs: readers by modality. `inputs["image"](i)` gives uint8 RGB [H, W, 3] of any size;
        `inputs["physiology"]` and `inputs["audio"]` float32 traces. `Rows` where it is an array in memory.
      content: `content(i)` gives a digest of the example's raw bytes, for finding duplicates: equal for equal bytes and
        for no others of this set. It may hang on what else is in the set.
      splits: the split that the data set itself prescribes for each example, or None; empty where a part of a
        combined set prescribes none.
      groups: subject (or video) of each example, for subject-disjoint folds, or None.
      face_crop: how the pictures' faces were cut out, one of `face_crop.CROPS`, or "" where they are no faces or it
        is not known; what a model of them is shown must be cut likewise.
      pixels: `pixels(i, min_side)` decodes the example's picture file, reduced or not while both sides are at least
        `min_side` (0: full size), for finding copies in other bytes; None where equal content is all there is to know.
      checksum: `checksum(i)` gives a text of the example's raw bytes alone, "" where they cannot be read, to know
        whether they are those of before. None where `content` is that.
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
        """uint32 [N]: a second hash of each key, which tells apart examples of the same id."""
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
        """What each example's raw bytes are known by, to compare with another day's; files of a folder are read."""
        return self._ask_all(self.checksum or self.content)

    def _ask_all(self, ask: Callable[[int], str]) -> list[str]:
        """By several threads: a network disk answers them at once."""
        chunks = np.array_split(np.arange(len(self)), _READERS)
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(lambda chunk: [ask(i) for i in chunk.tolist()], chunks)
            return [text for chunk in found for text in chunk]

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
