"""Streams of device batches for a run: the phases' endless ones and the splits' finite ones."""

from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from emokd.data.examples import Examples
from emokd.data.pipeline import BadImages, evaluation_batches, to_device, train_batches
from emokd.data.prefetch import DeviceIterator
from emokd.data.teacher_cache import CENTRE
from emokd.training.sharding import put_batch

Attach = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Streams:
    """Makes the streams of one run; unreadable pictures are counted over all of them."""

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh, attach: Attach = dict):
        """`attach` adds cached teacher features to a host batch."""
        data = config.data
        self._config, self._mesh, self._attach = config, mesh, attach
        self._options = {
            "batch_size": config.batch_size,
            "canvas": data.canvas,
            "fit": data.fit,
            "num_threads": data.num_threads,
            "in_memory": data.in_memory,
            "max_bad_fraction": data.max_bad_fraction,
            "bad_images": BadImages(),
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def training(self, examples: Examples, extra: Examples | None, phase: int) -> DeviceIterator:
        """A phase's endless batches; the order is a function of (seed, phase, epoch, index)."""
        seed = self._config.seed * 1009 + phase  # phases of one run, and runs of other seeds, have other orders
        host = train_batches(examples, seed=seed, views=self._config.data.views, extra=extra, **self._options)
        return to_device(host, self._put)

    def evaluation(self, examples: Examples, view: int = CENTRE) -> Iterator[dict[str, jax.Array]]:
        """Every example once, in order, all in one view (the evaluation view by default); the last batch is padded."""
        return to_device(evaluation_batches(examples, view=view, **self._options), self._put)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return put_batch(self._attach(batch), self._mesh)
