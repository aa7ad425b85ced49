"""Checkpoints of a training run: state, data iterator and best-so-far, saved while training goes on."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN, PreservationPolicy

from emokd.data.prefetch import DeviceIterator
from emokd.errors import InputError
from emokd.phase import Tree
from emokd.training import checksums
from emokd.training.distributed import in_first_process
from emokd.training.reading_back import difference
from emokd.training.selection import Best
from emokd.training.state import State

POSITION = "process_0-of-*.json"
"""In a checkpoint's folder `data`: the position of the first process's data iterator, which is that of all."""
NOTES = "_CHECKPOINT_METADATA"
"""At the top of a checkpoint: what orbax notes about it."""


class _OneStep(PreservationPolicy):
    """Keeps the checkpoint of one step. Orbax's BestN would know only scores of checkpoints that this process saved."""

    def __init__(self) -> None:
        self.step = -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`: the best one and the last few.

    Saving is asynchronous and atomic: a run killed while saving resumes from the step before. Each checkpoint holds
    the checksums of its files; damaged checkpoints are renamed, and the run goes on from the newest undamaged one.
    """

    def __init__(self, workdir: pathlib.Path, keep: int, best_is_needed: bool = True):
        """Opens the folder, which need not exist.

        Args:
          workdir: the run's folder.
          keep: how many of the last checkpoints to keep.
          best_is_needed: whether a checkpoint is of use only while the best one is undamaged.

        Raises:
          InputError: there are checkpoints, and all are damaged.
        """
        self._folder = pathlib.Path(workdir).absolute() / "checkpoints"
        in_first_process(lambda: set_aside_damaged(self._folder, best_is_needed))
        self._best = _OneStep()
        self._has_read_back = False
        policy = AnyPreservationPolicy([LatestN(keep), self._best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except (ValueError, TypeError) as error:
            found = str(error)
            in_first_process(lambda: _drop_notes(self._folder, found))
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: State, iterator: DeviceIterator, best: Best) -> None:
        """Saves in the background, unless this step is saved already.

        The first checkpoint that a process saves is read back before this returns, so that a place on which none can
        be read is found before the work is done.

        Args:
          state: the whole training state.
          iterator: the phase's data iterator, at the batch last handed out.
          best: best-so-far, this step included.

        Raises:
          InputError: the first checkpoint cannot be read back, or holds something else than was saved.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.wait()  # the callback that writes checksums reads `_saving`, so only one save may be under way
        self._best.step, self._saving = best.step, step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(iterator),
                best=ocp.args.JsonSave(best.to_json()),
            ),
        )
        if not self._has_read_back:
            self.wait()
            self._read_back(step, state)
            self._has_read_back = True

    def _read_back(self, step: int, state: State) -> None:
        """Compares a checkpoint that was just saved with the state; sets it aside where they differ."""
        folder = self._folder / str(step)
        fault = damage(folder, best_is_needed=False) or difference(folder / "state", state)

        def look() -> None:
            if not fault:
                return
            place = ""
            if folder.is_dir():
                place = f" It is now {folder.rename(_free_place(folder)).name}."
            raise InputError(
                f"Checkpoint {folder}, the first that was saved, cannot be read back: {fault}. What this file system "
                f"takes it does not give again, so no step would be kept.{place} Give a --workdir on another "
                "file system."
            )

        in_first_process(look)
        if fault:
            raise InputError(f"Checkpoint {folder} cannot be read back in this process: {fault}.")

    def restore(self, step: int, abstract: State) -> tuple[State, Best]:
        """Reads a step onto the shardings of `abstract`.

        Raises:
          InputError: the checkpoint's tree or shapes are not this run's, or it is damaged and has no checksums.
        """
        folder = self._folder / str(step)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), best=ocp.args.JsonRestore()),
            )
            return restored["state"], Best.from_json(restored["best"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            misfit = f"Checkpoint {folder} does not fit this configuration (another recipe, model or class list"
            if checksums.are_known(folder):
                raise InputError(f"{misfit}, or an older emokd?). Use another --workdir. Details: {error}") from error
            raise InputError(
                f"{misfit}?), or it is of an older emokd, or damaged, which cannot be told: it has no checksums. Use "
                "another --workdir, or remove this folder to go on from the checkpoint before it. Details: "
                f"{error}"
            ) from error

    def restore_weights(self, step: int, state: State) -> State:
        """Replaces step, parameters, statistics and average of `state` by a checkpoint's, and reads nothing else.

        The shardings stay those of `state`.

        Raises:
          InputError: the checkpoint is damaged.
        """
        in_first_process(lambda: _require_whole(self._folder / str(step)))
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            {"step": state.step, "params": state.params, "stats": state.stats, "average": state.average},
        )
        return dataclasses.replace(state, **read_weights(self._folder, step, abstract))

    def restore_iterator(self, step: int, iterator: DeviceIterator) -> None:
        """Sets a new data iterator to its position at `step`; the number of processes may have changed since.

        An iterator counts the batches of all processes, so every process stored the same position. Grain's own handler
        would look for a file named by this process's index and today's number of processes.

        Raises:
          InputError: the checkpoint has no checksums, and its position is damaged.
        """
        folder = self._folder / str(step)
        try:
            [stored] = (folder / "data").glob(POSITION)
            iterator.set_state(json.loads(stored.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"Checkpoint {folder} does not say at which batch it was saved ({error}). Remove this folder to go on "
                "from the checkpoint before it."
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the threads."""
        self._manager.close()

    def _write_checksums(self) -> None:
        """Orbax calls this in the first process, between writing a checkpoint and giving it its name."""
        for folder in self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            checksums.write(folder)


def steps_in(folder: pathlib.Path) -> list[int]:
    """The steps with a checkpoint in `folder`, ascending; logs and skips empty folders, left by an interrupted copy."""
    if not folder.is_dir():
        return []
    folders = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    for empty in [path for path in folders if not any(path.iterdir())]:
        logging.warning("%s is empty, and passed over.", empty)
        folders.remove(empty)
    return sorted(int(path.name) for path in folders)


def damage(folder: pathlib.Path, best_is_needed: bool = True) -> str:
    """Describes what is damaged in a checkpoint, or in the best one that it names; empty where both are undamaged.

    Args:
      folder: the checkpoint.
      best_is_needed: whether the best one is looked at.
    """
    if fault := checksums.damage(folder):
        return fault
    if not any((folder / "data").glob(POSITION)):
        return f"it lacks data/{POSITION}"
    if not best_is_needed:
        return ""
    try:
        best = json.loads((folder / "best" / "metadata").read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"best/metadata cannot be read ({error})"
    if best in (-1, int(folder.name)):
        return ""
    fault = checksums.damage(folder.with_name(str(best)))
    return f"checkpoint {best}, the best so far, is damaged: {fault}" if fault else ""


def set_aside_damaged(folder: pathlib.Path, best_is_needed: bool = True) -> None:
    """Renames checkpoints newer than the newest undamaged one, so that the run goes on from there; logs the damage.

    Nothing is deleted: `25` becomes `25.set_aside`.

    Args:
      folder: the run's `checkpoints`, which need not exist.
      best_is_needed: whether a checkpoint counts as damaged where the best one that it names is.

    Raises:
      InputError: every checkpoint is damaged; none is renamed then.
    """
    wrong: dict[int, str] = {}
    steps = steps_in(folder)
    for step in reversed(steps):
        if not (fault := damage(folder / str(step), best_is_needed)):
            break
        wrong[step] = fault
    else:
        if wrong:
            step, fault = next(iter(wrong.items()))
            raise InputError(
                f"Every checkpoint in {folder} is damaged ({', '.join(map(str, wrong))}). Of {step}, the newest: "
                f"{fault}. Restore the folder from a copy, or remove it to train anew."
            )
    newest = max(set(steps) - set(wrong), default=-1)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.isdecimal() and int(path.name) > newest:
            place = path.rename(_free_place(path))
            if int(path.name) in wrong:
                logging.warning(
                    "Checkpoint %s is damaged (%s): it is now %s, and the run goes on from step %d.",
                    *(path, wrong[int(path.name)], place.name, newest),
                )


def _drop_notes(folder: pathlib.Path, problem: str) -> None:
    """Removes the notes at the top of each checkpoint, with times and names of classes: orbax does without them."""
    logging.warning(
        "Orbax cannot read its notes in %s (%s). They are removed; nothing of the run is in them.", folder, problem
    )
    for step in steps_in(folder):
        (folder / str(step) / NOTES).unlink(missing_ok=True)


def _free_place(path: pathlib.Path) -> pathlib.Path:
    """Where a checkpoint is set aside: `25.set_aside`, or with a number behind it where that is taken."""
    names = (f"{path.name}.set_aside{'' if n == 1 else f'.{n}'}" for n in itertools.count(1))
    return next(place for name in names if not (place := path.with_name(name)).exists())


def _require_whole(folder: pathlib.Path) -> None:
    if fault := checksums.damage(folder):
        raise InputError(
            f"Checkpoint {folder}, the best of the run, is damaged: {fault}. Start the same command again: it goes on "
            "from a checkpoint that is whole."
        )


def read_weights(folder: epath.PathLike, step: int, abstract: Tree) -> Tree:
    """Reads a part of a checkpoint's state.

    Args:
      folder: the run's `checkpoints`.
      step: which one.
      abstract: shapes of what is wanted, with shardings, such as {"params": ..., "stats": ...}.

    Raises:
      ValueError: the checkpoint does not hold it in these shapes.
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
