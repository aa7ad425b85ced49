"""Checkpoints of a training run: state, data iterator and best-so-far, saved while training goes on."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN, PreservationPolicy

from emokd.errors import InputError
from emokd.phase import Tree
from emokd.training.selection import Best
from emokd.training.state import State


class _OneStep(PreservationPolicy):
    """Keeps the checkpoint of one step. Orbax's BestN would know the scores of this process's checkpoints alone."""

    def __init__(self) -> None:
        self.step = -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`: the best one and the last few.

    Saving is asynchronous and atomic: a run killed while saving resumes from the step before.
    """

    def __init__(self, workdir: pathlib.Path, keep: int):
        self._best = _OneStep()
        policy = AnyPreservationPolicy([LatestN(keep), self._best])
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True),
        )

    def latest(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: State, iterator: Any, best: Best) -> None:
        """Saves in the background, unless this step is saved already.

        Args:
          state: the whole training state.
          iterator: the phase's data iterator, at the batch last handed out.
          best: best-so-far, this step included.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._best.step = best.step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(iterator),
                best=ocp.args.JsonSave(best.to_json()),
            ),
        )

    def restore(self, step: int, abstract: State) -> tuple[State, Best]:
        """Reads a step onto the shardings of `abstract`.

        Raises:
          InputError: the checkpoint's tree or shapes are not this run's.
        """
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), best=ocp.args.JsonRestore()),
            )
        except (ValueError, KeyError) as error:
            raise InputError(
                f"Checkpoint {self._manager.directory / str(step)} does not fit this configuration "
                f"(another recipe, model or class list, or an older emokd?). Use another --workdir. Details: {error}"
            ) from error
        return found["state"], Best.from_json(found["best"])

    def restore_weights(self, step: int, state: State) -> State:
        """`state` with a step's number, parameters, statistics and average, on its own shardings; no more is read."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            {"step": state.step, "params": state.params, "stats": state.stats, "average": state.average},
        )
        return dataclasses.replace(state, **read_weights(self._manager.directory, step, abstract))

    def restore_iterator(self, step: int, iterator: Any) -> None:
        """Puts a fresh data iterator where it was at `step`, however many processes there were.

        An iterator counts the batches of all processes, so that each of them stored the same; grain's own handler
        would ask for a file of this process among as many.
        """
        [stored] = (self._manager.directory / str(step) / "data").glob("process_0-of-*.json")
        iterator.set_state(json.loads(stored.read_text()))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the threads."""
        self._manager.close()


def read_weights(folder: epath.PathLike, step: int, abstract: Tree) -> Tree:
    """Some of a checkpoint's state.

    Args:
      folder: the run's `checkpoints`.
      step: which one.
      abstract: shapes of what is wanted, with shardings, such as {"params": ..., "stats": ...}.

    Raises:
      ValueError: it is not there in these shapes.
    """
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        return reader.restore(
            epath.Path(folder) / str(step) / "state",
            args=ocp.args.PyTreeRestore(item=abstract, restore_args=arguments, partial_restore=True),
        )


def abstract_like(state: State, shardings: State) -> State:
    """Shapes and dtypes of a state on the given shardings, for restoring."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
