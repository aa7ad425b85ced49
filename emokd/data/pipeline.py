"""Makes batches of a data set; element i of the endless training stream is a pure function of (seed, i)."""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int64

from emokd.data.canvases import BadImages, canvases_of
from emokd.data.decode import FITS, DecodeError
from emokd.data.examples import Examples, Rows
from emokd.data.prefetch import to_device
from emokd.errors import InputError, nearest
from emokd.labels import UNLABELLED

__all__ = ["BadImages", "epoch_order", "evaluation_batches", "readable", "to_device", "train_batches"]

RESERVED = ("image", "id", "check", "view", "mask")
_PADDING = -1

Batch = dict[str, np.ndarray]


def train_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    canvas: int,
    fit: str,
    start: int = 0,
    num_threads: int = 2,
    views: int = 0,
    first_view: int = 0,
    in_memory: bool = False,
    max_bad_fraction: float = 0.001,
    bad_images: BadImages | None = None,
    extra: Sequence[Examples] = (),
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """An endless stream of shuffled training batches.

    Element i of the stream is example `epoch_order(n, seed, epoch)[i % n]` with epoch = i // n. Batches run
    across the end of an epoch; no example is left out of any epoch, so the batch at its end may hold an
    example twice, in two views.

    A batch is a dict of arrays with `batch_size / process_count` rows: `image` uint8 [b, canvas, canvas, 3],
    every column of the examples, every other input under its own name, `id` and `check` uint32 (see Examples),
    `view` int32, and `mask` bool, False where the picture could not be read: there the picture is black and the
    targets are unlabelled.

    Args:
      examples: the training split.
      batch_size: rows of the global batch.
      seed: 0 or more; determines the order.
      canvas: side of the pictures, pixels. Without an input `image` it has no effect, nor has `fit`.
      fit: how a picture fills the canvas, see `emokd.data.decode.to_canvas`.
      start: the batch to begin with. The iterator's states are absolute: they are valid for any start.
      num_threads: threads that read ahead, each a whole batch; 0 reads in the caller's thread.
      views: the number of different views of each example, 0 for a new one in every epoch. The view of a
        row is `first_view` plus its epoch, modulo `views` if that is positive.
      first_view: the view of the first epoch.
      in_memory: keep decoded canvases; shared by all iterators over the same Examples object.
      max_bad_fraction: fraction of the examples, and of the extra ones, whose pictures may be unreadable.
      bad_images: counts the unreadable pictures.
      extra: sets of unlabelled examples, appended to the others; their own columns are ignored.
      process_index: which rows of each global batch to make: block `process_index` of `process_count`.
      process_count: number of processes that share the global batch.

    Returns:
      A grain iterator; `get_state` and `set_state` resume it exactly.

    Raises:
      InputError: an argument is out of range, the batch is larger than the split or does not divide among
        the processes, names collide, or (later, from the iterator) too many pictures are unreadable.
    """
    rows = _check_batch(batch_size, process_index, process_count)
    sources = [examples, *extra]
    total = sum(len(source) for source in sources)
    if batch_size > total:
        raise InputError(
            f"{examples.name}: a batch of {batch_size} is larger than the {total} training examples. "
            "Lower --config.batch_size."
        )
    for name, value in (("seed", seed), ("data.views", views), ("first_view", first_view), ("start", start)):
        if not 0 <= value < 2**63:
            raise InputError(f"{name} is {value}; give a whole number of 0 or more.")
    read = _RowReader(sources, canvas, fit, in_memory, max_bad_fraction, bad_images, sources)

    def make(batch: int) -> Batch:
        stream = np.arange(rows, dtype=np.int64) + (batch * batch_size + process_index * rows)
        indices, epochs = _elements(stream, total, seed)
        numbers = first_view + epochs
        return read(indices, (numbers % views if views else numbers).astype(np.int32))

    iterator = _iterate(sys.maxsize, make, num_threads)
    iterator.set_state({"next_index": start})
    return iterator


def evaluation_batches(
    examples: Examples,
    *,
    batch_size: int,
    canvas: int,
    fit: str,
    view: int = 0,
    num_threads: int = 2,
    in_memory: bool = False,
    max_bad_fraction: float = 0.001,
    bad_images: BadImages | None = None,
    part_of: Examples | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Every example once, in order. The last batch is filled up with black, unlabelled rows whose mask is False.

    Batches are as in `train_batches`; all have the same size, on all processes, and `view` is the same in
    every row. A batch may be larger than the split. Where the examples are a part of a larger set, `part_of` is that
    set: the limit of unreadable pictures is then a fraction of it.

    Raises:
      InputError: as in `train_batches`.
    """
    rows = _check_batch(batch_size, process_index, process_count)
    whole = examples if part_of is None else part_of
    read = _RowReader([examples], canvas, fit, in_memory, max_bad_fraction, bad_images, [whole])

    def make(batch: int) -> Batch:
        places = np.arange(rows, dtype=np.int64) + (batch * batch_size + process_index * rows)
        return read(np.where(places < len(examples), places, _PADDING), np.full(rows, view, np.int32))

    return _iterate(-(-len(examples) // batch_size), make, num_threads)


def names_of_batch(sources: Sequence[Examples], batch: int, *, batch_size: int, seed: int) -> list[str]:
    """The keys of the examples of a global batch of `train_batches`, in order; reads no example.

    Args:
      sources: the training split, and after it the extra sets.
      batch: its number in the stream, from 0.
      batch_size: rows of the global batch.
      seed: that of the stream.
    """
    offsets = np.cumsum([0] + [len(source) for source in sources])
    indices, _ = _elements(np.arange(batch_size) + batch * batch_size, int(offsets[-1]), seed)
    places = np.searchsorted(offsets, indices, side="right") - 1
    return [sources[s].keys[i - offsets[s]] for s, i in zip(places.tolist(), indices.tolist(), strict=True)]


def _elements(stream: Int64[np.ndarray, " b"], total: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which example each element of the endless stream is, and in which epoch."""
    epochs, places = np.divmod(stream, total)
    indices = np.empty(len(stream), np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(total, seed, int(epoch))[places[here]]
    return indices, epochs


@functools.lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order of n examples in an epoch: the ranks of n Philox numbers keyed on (seed, epoch).

    Only the raw generator is used, whose stream NumPy promises to keep; `Generator.permutation` may change
    between releases. The last few orders are cached.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    order = np.argsort(bits, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def _iterate(length: int, make, num_threads: int) -> grain.DatasetIterator:
    """Iterates over `make(0), make(1), ...`. Each thread makes a whole batch, so no rows are copied to stack them."""
    if num_threads < 0:
        raise InputError(f"data.num_threads is {num_threads}; give 0 or more.")
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(grain.MapDataset.range(length).map(make).to_iter_dataset(options))


def _check_batch(batch_size: int, process_index: int, process_count: int) -> int:
    """Checks the sizes, and returns the number of rows of one process."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1.")
    if not 0 <= process_index < process_count:
        raise InputError(f"There is no process {process_index} among {process_count}.")
    if batch_size % process_count:
        raise InputError(
            f"A batch of {batch_size} cannot be divided evenly among {process_count} processes. "
            f"Make --config.batch_size a multiple of {process_count}."
        )
    return batch_size // process_count


class _RowReader:
    """Makes batches of the rows of data sets, concatenated; row -1 is padding."""

    def __init__(
        self,
        sources: Sequence[Examples],
        canvas: int,
        fit: str,
        in_memory: bool,
        max_bad_fraction: float,
        bad_images: BadImages | None,
        counted_in: Sequence[Examples],
    ):
        first = sources[0]
        _check_names(sources)
        if "image" in first.inputs:
            if fit not in FITS:
                raise InputError(f"data.fit is {fit!r}.{nearest(fit, FITS)} Choose one of {', '.join(FITS)}.")
            if canvas < 1:
                raise InputError(f"data.canvas is {canvas}; give at least 1.")
        if not 0 <= max_bad_fraction <= 1:
            raise InputError(f"data.max_bad_fraction is {max_bad_fraction}; give a number from 0 to 1.")
        self._sources, self._counted_in = sources, counted_in
        self._offsets = np.cumsum([0] + [len(source) for source in sources])
        self._canvas = canvas
        self._max_bad_fraction = max_bad_fraction
        self._bad = BadImages() if bad_images is None else bad_images
        pictured = sources if "image" in first.inputs else ()
        self._canvases = [canvases_of(source, canvas, fit, in_memory) for source in pictured]
        # One more row at the end is unlabelled: index -1, padding, selects it.
        unlabelled = int(self._offsets[-1]) - len(first) + 1
        self._columns = {name: _extended(name, values, unlabelled) for name, values in first.columns.items()}
        nothing = [np.zeros(1, np.uint32)]
        self._ids = np.concatenate([source.ids for source in sources] + nothing)
        self._checks = np.concatenate([source.checks for source in sources] + nothing)
        self._shapes = {
            name: (sample.shape, sample.dtype)
            for name, sample in ((name, readable(first, name)) for name in first.inputs if name != "image")
        }

    def __call__(self, indices: Int64[np.ndarray, " b"], views: np.ndarray) -> Batch:
        mask = indices != _PADDING
        batch: dict[str, Any] = {}
        if self._canvases:
            batch["image"] = self._read_images(indices, mask)
        arrays = {name: self._read_arrays(name, indices, mask) for name in self._shapes}
        labels = np.where(mask, indices, _PADDING)
        batch |= {name: values[labels] for name, values in self._columns.items()} | arrays
        return batch | {"id": self._ids[indices], "check": self._checks[indices], "view": views, "mask": mask}

    def _locate(self, index: int) -> tuple[int, int]:
        """Which source an index belongs to, and its place there."""
        source = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return source, index - int(self._offsets[source])

    def _read_images(self, indices: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Reads the pictures into a new array; clears the mask of those that cannot be read."""
        images = np.empty((len(indices), self._canvas, self._canvas, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            images[row] = 0 if index == _PADDING else self._read_image(index, row, mask)
        return images

    def _read_image(self, index: int, row: int, mask: np.ndarray) -> np.ndarray | int:
        source, place = self._locate(index)
        try:
            return self._canvases[source].read(place)
        except DecodeError as error:
            self._leave_out(source, place, error, row, mask)
            return 0

    def _leave_out(self, source: int, place: int, error: DecodeError, row: int, mask: np.ndarray) -> None:
        mask[row] = False
        self._bad.add(self._counted_in[source], self._sources[source].keys[place], error, self._max_bad_fraction)

    def _read_arrays(self, name: str, indices: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Reads an input into a new array; clears the mask of clips whose pictures cannot be read."""
        shape, dtype = self._shapes[name]
        rows = np.zeros((len(indices), *shape), dtype)
        readers = [source.inputs[name] for source in self._sources]
        tables = [r for r in readers if isinstance(r, Rows) and (r.array.shape[1:], r.dtype) == (shape, dtype)]
        if len(tables) == len(readers):
            for reader, start, end in zip(tables, self._offsets, self._offsets[1:], strict=False):
                here = (start <= indices) & (indices < end)
                rows[here] = reader.many(indices[here] - start)
            return rows
        for row, index in enumerate(indices.tolist()):
            if index == _PADDING:
                continue
            source, place = self._locate(index)
            try:
                value = np.asarray(self._sources[source].inputs[name](place))
            except DecodeError as error:
                self._leave_out(source, place, error, row, mask)
                continue
            if (value.shape, value.dtype) != (shape, dtype):
                raise InputError(
                    f"{self._sources[source].name}: the {name} of {self._sources[source].keys[place]} is "
                    f"{value.dtype} {value.shape}, but the first example's is {dtype} {shape}. "
                    "Bring all examples to one shape and type."
                )
            rows[row] = value
        return rows


def readable(examples: Examples, name: str) -> np.ndarray:
    """The input `name` of the first example whose input can be read.

    Raises:
      DecodeError: none can be read; the error is the first example's.
    """
    failure: DecodeError | None = None
    for i in range(len(examples)):
        try:
            return np.asarray(examples.inputs[name](i))
        except DecodeError as error:
            failure = failure or error
    assert failure is not None  # no set is empty
    raise failure


def _extended(name: str, values: np.ndarray, rows: int) -> np.ndarray:
    """A column with `rows` unlabelled rows appended."""
    values = np.asarray(values)
    nothing: float = UNLABELLED
    if not np.issubdtype(values.dtype, np.integer):
        nothing = 0.0 if name == "votes" else np.nan
    return np.concatenate([values, np.full((rows, *values.shape[1:]), nothing, values.dtype)])


def _check_names(sources: Sequence[Examples]) -> None:
    """Checks that names of targets and inputs do not collide, and that every source has the inputs of the first."""
    first = sources[0]
    taken = [name for name in first.columns if name in RESERVED or name in first.inputs]
    taken += [name for name in first.inputs if name in RESERVED and name != "image"]
    if taken:
        raise InputError(
            f"{first.name}: {', '.join(map(repr, taken))} cannot name a target: it is an input's name or one of "
            f"{', '.join(RESERVED)}. Rename it."
        )
    for source in sources[1:]:
        missing = [name for name in first.inputs if name not in source.inputs]
        if missing:
            raise InputError(
                f"{source.name} has no input {', '.join(map(repr, missing))}, which {first.name} has. "
                "Leave it out of --config.data.extra, or choose a source with the same inputs."
            )
