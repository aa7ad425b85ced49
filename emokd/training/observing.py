"""Stores what the networks compute for a few fixed examples at evaluations, for the report's pictures."""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from emokd.data.examples import Examples
from emokd.phase import Tree
from emokd.reporting import observations
from emokd.training import evaluation
from emokd.training.programs import Programs
from emokd.training.streams import Streams


class Observer:
    """Runs a recipe's `observe`, where it has one, and writes the results to the run's folder."""

    def __init__(
        self,
        programs: Programs,
        streams: Streams,
        splits: Mapping[str, Examples],
        workdir: pathlib.Path,
        batch_size: int,
    ):
        """Picks the examples: from the validation split where there is one, else from the training split."""
        self._programs, self._streams, self._workdir = programs, streams, workdir
        self._split = splits.get("validation", splits["train"])
        self._examples = few_examples(self._split, batch_size) if programs.observe is not None else None
        self._classes = splits["train"].classes.get("expression", ())

    def observe(self, weights: tuple[Tree, Tree], constants: Tree, phase: str, step: int) -> None:
        """Writes what the networks compute with these weights (parameters, statistics), under phase and step."""
        if self._programs.observe is None or self._examples is None:
            return
        with jax.transfer_guard("allow"):
            (batch,) = self._streams.evaluation(self._examples, part_of=self._split)
            observed = jax.device_get(self._programs.observe(*weights, constants, batch))
            targets = {name: evaluation.fetch(batch[name]) for name in observations.TARGETS if name in batch}
            rows = evaluation.fetch(batch["mask"])
        if jax.process_index() == 0:
            arrays = {name: np.asarray(values)[rows] for name, values in {**observed, **targets}.items()}
            observations.write(self._workdir, phase, step, arrays, self._classes)


def few_examples(examples: Examples, batch_size: int) -> Examples:
    """A fixed sample of at most a batch: the examples of lowest id, which is a hash, in the order of the data set."""
    count = min(len(examples), batch_size, observations.EXAMPLES)
    return examples.select(np.sort(np.argsort(examples.ids, kind="stable")[:count]))
