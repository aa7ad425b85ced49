"""Pictures of a data set on square canvases, kept in memory on request, and the count of those that cannot be read."""

import threading
import weakref
from collections.abc import Mapping

import numpy as np
from absl import logging
from jaxtyping import UInt8

from emokd.data.decode import DecodeError, to_canvas
from emokd.data.examples import Examples
from emokd.errors import InputError, excerpt


class BadImages:
    """Counts the examples whose picture cannot be read, set by set. Thread-safe; each key counts once.

    A set is a split, or the unlabelled pictures beside it. Each has a limit of its own: unreadable training pictures do
    not count against the validation split.

    Attributes:
      reasons: the decoder's message by `"data set: key"`, in order of discovery.
    """

    def __init__(self, names: Mapping[str, Examples] | None = None):
        """`names` says what the sets are called in messages, such as "test split"."""
        self.reasons: dict[str, str] = {}
        self._names = dict(names or {})
        # Holds the sets themselves: the `id` of a deleted object may be reused by another.
        self._sets: dict[int, tuple[Examples, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, examples: Examples, key: str, error: DecodeError, max_fraction: float) -> None:
        """Counts a bad picture.

        Args:
          examples: the whole set that the picture belongs to.
          key: the example's key.
          error: why it cannot be read.
          max_fraction: the fraction of the set's pictures that may be bad.

        Raises:
          InputError: the set now has more bad pictures than that.
        """
        name = f"{examples.name}: {key}"
        with self._lock:
            bad = self._sets.setdefault(id(examples), (examples, {}))[1]
            if name not in bad:
                logging.warning("Left out from now on: %s: %s", name, error)
            bad.setdefault(name, str(error))
            self.reasons.setdefault(name, str(error))
            names, first = list(bad), next(iter(bad.values()))
        if len(names) > max_fraction * len(examples):
            raise InputError(
                f"{len(names)} of {len(examples)} pictures{self._of(examples)} cannot be read, more than the fraction "
                f"{max_fraction:g} allowed: {excerpt(names)}. The first says: {first} "
                "Restore or remove these files, or raise --config.data.max_bad_fraction."
            )

    def _of(self, examples: Examples) -> str:
        called = [name for name, split in self._names.items() if split is examples]
        return f" of the {' and '.join(called)}" if called else ""


class Canvases:
    """The pictures of a data set, each on a square canvas.

    Args:
      examples: the data set; its reader `image` is used.
      size: side of the canvas, pixels.
      fit: how a picture fills it, see `emokd.data.decode.to_canvas`.
      keep: keep each canvas in memory once it is decoded: `len(examples) * size * size * 3` bytes in all.
    """

    def __init__(self, examples: Examples, size: int, fit: str, keep: bool):
        # Holds no reference to the examples: `canvases_of` drops the canvases when the examples are deleted.
        self._read = examples.inputs["image"]
        self._size, self._fit, self._keep = size, fit, keep
        if keep:
            self._pixels = np.empty((len(examples), size, size, 3), np.uint8)
            self._ready = np.zeros(len(examples), bool)
            self._errors: dict[int, DecodeError] = {}
            logging.info(
                "%s: pictures are kept in memory, %d bytes once all are read.", examples.name, self._pixels.nbytes
            )

    def read(self, i: int) -> UInt8[np.ndarray, "S S 3"]:
        """The canvas of example i; do not write to it. Two threads may decode the same picture, to the same bytes.

        Raises:
          DecodeError: the picture cannot be decoded.
        """
        if not self._keep:
            return self._decode(i)
        if i in self._errors:
            raise self._errors[i]
        if not self._ready[i]:
            try:
                self._pixels[i] = self._decode(i)
            except DecodeError as error:
                self._errors[i] = error
                raise
            self._ready[i] = True
        return self._pixels[i]

    def _decode(self, i: int) -> np.ndarray:
        pixels = self._read(i)
        if pixels.shape == (self._size, self._size, 3):  # No fit changes it: avoid the copy.
            return pixels
        return to_canvas(pixels, self._size, self._fit)


_kept: dict[tuple[int, int, str], Canvases] = {}
_kept_lock = threading.Lock()


def canvases_of(examples: Examples, size: int, fit: str, in_memory: bool) -> Canvases:
    """The canvases of a data set; those kept in memory are shared by all calls with the same Examples object."""
    if not in_memory:
        return Canvases(examples, size, fit, keep=False)
    key = (id(examples), size, fit)
    with _kept_lock:
        if key not in _kept:
            _kept[key] = Canvases(examples, size, fit, keep=True)
            weakref.finalize(examples, _kept.pop, key, None)
        return _kept[key]
