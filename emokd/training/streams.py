"""Streams of device batches for a run: the phases' endless ones and the splits' finite ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from emokd.data.cache.reader import CENTRE
from emokd.data.examples import Examples
from emokd.data.pipeline import BadImages, evaluation_batches, names_of_batch, to_device, train_batches
from emokd.data.prefetch import DeviceIterator
from emokd.training.sharding import put_batch

Attach = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


VIEWS_OF_A_PHASE = 2**20
"""How many view numbers each phase has to itself; no phase has so many epochs."""


class Streams:
    """Makes the streams of one run; unreadable pictures are counted over all of them, split by split."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        mesh: Mesh,
        attach: Attach = dict,
        splits: Mapping[str, Examples] | None = None,
    ):
        """Keeps what all streams share.

        Args:
          config: the run's configuration.
          mesh: the devices that batches are put on.
          attach: adds cached teacher features to a host batch.
          splits: the run's examples by split, for messages.
        """
        data = config.data
        self._config, self._mesh, self._attach = config, mesh, attach
        self._options = {
            "batch_size": config.batch_size,
            "canvas": data.canvas,
            "fit": data.fit,
            "num_threads": data.num_threads,
            "in_memory": data.in_memory,
            "max_bad_fraction": data.max_bad_fraction,
            "bad_images": BadImages({f"{name} split": part for name, part in (splits or {}).items()}),
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def training(self, examples: Examples, extra: Sequence[Examples], phase: int) -> DeviceIterator:
        """A phase's endless batches; order and views are functions of (seed, phase, epoch, index).

        No phase repeats another's views. Where `config.data.views` limits their number, phases begin at different ones.
        """
        seed = self._seed(phase)
        views = self._config.data.views
        first = phase % views if views else phase * VIEWS_OF_A_PHASE
        host = train_batches(examples, seed=seed, views=views, first_view=first, extra=extra, **self._options)
        return to_device(host, self._put)

    def names(self, examples: Examples, extra: Sequence[Examples], phase: int, batch: int) -> list[str]:
        """The keys of the examples in a batch of `training`, whose first is batch 0."""
        return names_of_batch([examples, *extra], batch, batch_size=self._config.batch_size, seed=self._seed(phase))

    def _seed(self, phase: int) -> int:
        """Phases of one run, and runs of other seeds, have other orders."""
        return self._config.seed * 1009 + phase

    def evaluation(
        self, examples: Examples, view: int = CENTRE, part_of: Examples | None = None
    ) -> Iterator[dict[str, jax.Array]]:
        """Every example once, in order, all in one view (the evaluation view by default); the last batch is padded.

        `part_of` is the split from which the examples are a selection, where they are one.
        """
        return to_device(evaluation_batches(examples, view=view, part_of=part_of, **self._options), self._put)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return put_batch(self._attach(batch), self._mesh)
