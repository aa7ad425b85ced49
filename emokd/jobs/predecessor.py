"""A run that begins where another one ended: with its parameters and statistics, and without the phases it has done.

Where the other run has done all phases, the last one is done again, with a new schedule: so a finished run is
prolonged. It also gives several students the same teachers: one run trains the teachers
(`config.phases.student.enabled = False`), the others name its folder in `config.start_from`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from emokd.data import reference
from emokd.data.reference import Reference
from emokd.errors import InputError, excerpt
from emokd.jobs.workdir import RECORD, read_config
from emokd.models.rounding import RANGES
from emokd.phase import Recipe, Tree, path_string
from emokd.recipes.common.phases import takes_part
from emokd.training import checksums, evaluation
from emokd.training.checkpoints import abstract_like, read_weights, steps_in
from emokd.training.state import State
from emokd.weights import model_folder

Begin = tuple[Tree, Tree]
"""Parameters and statistics."""


def without(recipe: Recipe, done: Collection[str], folder: pathlib.Path) -> Recipe:
    """The recipe without the phases of these names, however long they were.

    Where none is left the run is prolonged: its last phase is done again, for its own length and with a learning-rate
    schedule of its own, from the parameters at the end of the run in `folder`.
    """
    phases = [phase for phase in recipe.phases if phase.name not in done]
    if not phases:
        phases = [recipe.phases[-1]]
        logging.info(
            "config.start_from: the run in %s has done every phase of this one (%s). Phase %s is done again, %d steps "
            "from its last parameters; to prolong an earlier phase, disable those after it "
            "(config.phases.NAME.enabled=False).",
            *(folder, ", ".join(phase.name for phase in recipe.phases), phases[0].name, phases[0].steps),
        )
    return dataclasses.replace(recipe, phases=phases)


def phases_done(folder: pathlib.Path) -> set[str]:
    """Names of the phases that the finished run in `folder` has done, and the runs that it started from.

    Raises:
      InputError: there is no finished run.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"config.start_from is {folder}, which holds no run: there is no config.json.")
    if not (folder / "scores.json").exists():
        raise InputError(f"config.start_from is {folder}, whose run is not finished; finish it first.")
    config = read_config(folder / "config.json")
    earlier: set[str] = set()
    if config.start_from and (recorded := _phases_on_record(folder)) is not None:
        earlier = recorded  # that run's folder may be gone, or be named from another working directory
    elif config.start_from:
        earlier = phases_done(pathlib.Path(config.start_from))
    return earlier | {name for name, phase in config.phases.items() if takes_part(phase)}


def _phases_on_record(folder: pathlib.Path) -> set[str] | None:
    """The phases that had been done when the run in `folder` began, as far as its record says."""
    try:
        started = json.loads((folder / RECORD).read_text(encoding="utf-8"))["start_from"]
        return set(started["phases"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load(folder: pathlib.Path, abstract: State, places: State) -> Begin:
    """Parameters and statistics at the end of the run in `folder`.

    Args:
      folder: a finished run's.
      abstract: shapes of the new run's state.
      places: shardings of the new run's state.

    Raises:
      InputError: its checkpoints are gone or damaged, or its networks differ; the first few differences are named.
    """
    path = (folder / "checkpoints").absolute()
    steps = steps_in(path)
    if not steps:
        raise InputError(f"config.start_from is {folder}, but its checkpoints are gone.")
    step = steps[-1]
    if damage := checksums.damage(path / str(step)):
        raise InputError(
            f"config.start_from: checkpoint {path / str(step)}, the last of that run, is damaged: {damage}. Restore "
            "it, or train that run anew."
        )
    state = abstract_like(abstract, places)
    stored = stored_shapes(path, step)
    stats, ranges = _without_ranges(state.stats, stored["stats"])
    wanted = {"params": state.params, "stats": stats}
    # Before anything is read: a restore that fails half-way leaves its coroutines behind.
    differences = compare_shapes(wanted, stored)
    if differences:
        raise InputError(
            f"config.start_from: the networks of {folder} are not those of this run: {excerpt(differences)}. "
            "Give both the same modalities, teachers, widths and classes."
        )
    weights = read_weights(path, step, wanted)
    # A network of NaN can answer zeros, so that teachers which rest would not be noticed.
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    bad = [path_string(place) for place, leaf in leaves if not np.isfinite(evaluation.fetch(leaf)).all()]
    if bad:
        raise InputError(
            f"config.start_from: what the run in {folder} has learnt is not finite (checkpoint {step}: "
            f"{excerpt(bad, 3)}): it has diverged. Train it anew with a lower learning rate."
        )
    logging.info("Beginning with what has been learnt in %s.", folder)
    for name, leaf in ranges.items():
        zeros = jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        weights["stats"][name] = {**weights["stats"][name], RANGES: zeros}
    return weights["params"], weights["stats"]


def _without_ranges(stats: Tree, stored: Tree) -> tuple[Tree, dict[str, Any]]:
    """Statistics without the ranges that another run lacks, because it quantises no student; and these, by network."""
    missing = {
        name: entry[RANGES]
        for name, entry in stats.items()
        if isinstance(entry, dict) and RANGES in entry and RANGES not in stored.get(name, {})
    }
    kept = {
        name: {key: leaf for key, leaf in entry.items() if key != RANGES} if name in missing else entry
        for name, entry in stats.items()
    }
    return kept, missing


def references(folder: pathlib.Path) -> dict[str, Reference]:
    """The centre and unit in which the run in `folder` read its arrays: its statistics hold for such values alone.

    Raises:
      InputError: its student is gone.
    """
    return reference.from_json(model_folder.provenance(folder / "student").get("references", {}))


def compare_shapes(wanted: Tree, stored: Tree) -> list[str]:
    """Describes the arrays of `wanted` that `stored` lacks or holds in another shape."""
    wanted_shapes, stored_shapes = _shapes(wanted), _shapes(stored)
    return [
        f"{name} is {stored_shapes.get(name, 'missing')} there, {shape} here"
        for name, shape in wanted_shapes.items()
        if stored_shapes.get(name) != shape
    ]


def stored_shapes(folder: pathlib.Path, step: int) -> Tree:
    """The tree of a checkpoint's state, with metadata as leaves, which have a `shape`."""
    # Not through orbax's Checkpointer, which looks for metadata of a step in this folder too, and warns without need.
    reader = ocp.PyTreeCheckpointHandler()
    try:
        return reader.metadata(epath.Path(folder) / str(step) / "state").tree
    finally:
        reader.close()


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {path_string(path): tuple(leaf.shape) for path, leaf in leaves}
