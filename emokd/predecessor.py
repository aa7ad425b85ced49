"""A run that begins where another one ended: with its parameters and statistics, and without the phases it has done.

Several students of the same teachers, say: one run trains the teachers (`config.phases.student.enabled = False`), the
others name its folder in `config.start_from`.
"""

import dataclasses
import pathlib
from collections.abc import Collection

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from emokd.errors import InputError, excerpt
from emokd.phase import Recipe, Tree, path_string
from emokd.training.state import State
from emokd.workdir import read_config

Begin = tuple[Tree, Tree]
"""Parameters and statistics, on the host."""


def without(recipe: Recipe, done: Collection[str], folder: pathlib.Path) -> Recipe:
    """The recipe without the phases of these names, however long they were.

    Raises:
      InputError: none is left.
    """
    phases = [phase for phase in recipe.phases if phase.name not in done]
    if not phases:
        raise InputError(
            f"config.start_from: the run in {folder} has done every phase of this one "
            f"({', '.join(phase.name for phase in recipe.phases)}). Train it with those to repeat disabled, such as "
            f"--config.phases.{recipe.phases[-1].name}.enabled=False."
        )
    return dataclasses.replace(recipe, phases=phases)


def phases_done(folder: pathlib.Path) -> set[str]:
    """Names of the phases that the finished run in `folder` has done, and the run that it began with.

    Raises:
      InputError: there is no finished run.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"config.start_from is {folder}, which holds no run: there is no config.json.")
    if not (folder / "scores.json").exists():
        raise InputError(f"config.start_from is {folder}, whose run is not finished; finish it first.")
    config = read_config(folder / "config.json")
    earlier = phases_done(pathlib.Path(config.start_from)) if config.start_from else set()
    return earlier | {name for name, phase in config.phases.items() if phase.enabled}


def load(folder: pathlib.Path, abstract: State) -> Begin:
    """Parameters and statistics at the end of the run in `folder`.

    Args:
      folder: a finished run's.
      abstract: shapes of the new run's state.

    Raises:
      InputError: its checkpoints are gone, or its networks are others.
    """
    logging.info("Beginning with what has been learnt in %s.", folder)
    return adopt(_last_checkpoint(folder), abstract, folder)


def _last_checkpoint(folder: pathlib.Path) -> Tree:
    with ocp.CheckpointManager((folder / "checkpoints").absolute()) as manager:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"config.start_from is {folder}, but its checkpoints are gone.")
        target = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return target["state"]


def adopt(found: Tree, abstract: State, folder: pathlib.Path) -> Begin:
    """The stored parameters and statistics, checked against the new run's.

    Args:
      found: {"params", "stats"} of the checkpoint.
      abstract: shapes of the new run's state.
      folder: for the message.

    Raises:
      InputError: paths or shapes differ; the first few are named.
    """
    stored = {"params": found["params"], "stats": found["stats"]}
    wanted = {"params": abstract.params, "stats": abstract.stats}
    ours, theirs = _shapes(wanted), _shapes(stored)
    problems = [f"{name} is missing there" for name in ours if name not in theirs]
    problems += [f"{name} is there alone" for name in theirs if name not in ours]
    problems += [
        f"{name} is {theirs[name]} there, {ours[name]} here"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]
    if problems:
        raise InputError(
            f"config.start_from: the networks of {folder} are not those of this run: {excerpt(problems)}. "
            "Give both the same modalities, teachers, widths and classes."
        )
    values = {path_string(path): np.asarray(value) for path, value in jax.tree_util.tree_leaves_with_path(stored)}
    filled = jax.tree_util.tree_map_with_path(lambda path, _: values[path_string(path)], wanted)
    return filled["params"], filled["stats"]


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    return {path_string(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
