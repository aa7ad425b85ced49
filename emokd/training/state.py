"""The training state: everything that changes from step to step, and nothing else."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array

from emokd.phase import Recipe, Tree, label_parameters
from emokd.training import averaging, divergence, skipping
from emokd.training.optimizer import create_optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Checkpointed whole; what a step may change of it is donated to the step.

    Attributes:
      step: steps of the whole run so far, int32.
      phase: index of the phase that takes the next step, int32; the number of phases at the run's end.
      phase_step: steps of that phase so far, int32. A phase may end early, so this does not follow from `step`.
      params: parameters that learn in at least one phase.
      stats: BatchNorm statistics and other running values.
      average: the student's moving average over the present phase, `params` and `stats` with the student's entries of
        those; empty where `config.ema.decay` is 0.
      optimizer: the optimiser's state; the same tree in every phase.
      weighting: the teacher-weighting chain's state.
      tally: sums over the present phase of the weights each teacher received, by class: `weights`
        [C + 1, K] and `rows` [C + 1]; the last row is for examples without a label. Empty without teachers.
      failed: the first step after which each of `divergence.watched` was not finite, 0 where it always was; int32 [P].
        Where L steps may be skipped it is [1 + L, P], with the record of `emokd.training.skipping` below that row.
      key: root of all randomness inside the step; step n uses fold_in(key, n).
    """

    step: Array
    phase: Array
    phase_step: Array
    params: Tree
    stats: Tree
    average: Tree
    optimizer: Any
    weighting: Tree
    tally: Tree
    failed: Array
    key: Array


def empty_tally(classes: int, teachers: int) -> Tree:
    """A tally before any step, see `State.tally`."""
    return {
        "weights": jnp.zeros((classes + 1, teachers), jnp.float32),
        "rows": jnp.zeros((classes + 1,), jnp.float32),
    }


def create_state(recipe: Recipe, config: ml_collections.ConfigDict, classes: int, key: Array) -> State:
    """The state at step 0; traceable, so that `jit` can create it on its shardings.

    Args:
      recipe: what is trained.
      config: the run's configuration.
      classes: how many expressions there are.
      key: root of all randomness of the run, `jax.random.key(config.seed)`.

    Raises:
      InputError: a parameter belongs to no group or to several.
    """
    init_key, step_key = jax.random.split(key)
    params, stats = recipe.init(init_key)
    labels = label_parameters(params, recipe.groups)
    optimizer = create_optimizer(config.optimizer, recipe.phases[0], labels, recipe.groups)
    return State(
        step=jnp.zeros((), jnp.int32),
        phase=jnp.zeros((), jnp.int32),
        phase_step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        average=averaging.create(recipe, config.ema.decay, params, stats),
        optimizer=optimizer.init(params),
        weighting=recipe.weighting.init(jnp.zeros((1, len(recipe.teachers)))) if recipe.weighting else {},
        tally=empty_tally(classes, len(recipe.teachers)) if recipe.weighting else {},
        failed=skipping.create(config.optimizer.skip_diverged, len(divergence.watched(recipe.groups, stats))),
        key=step_key,
    )


def weights_for_use(state: State) -> tuple[Tree, Tree]:
    """Parameters and statistics for everything but training: scoring, observing, the student's folder.

    The student's are its moving average where there is one; the others are those after the last step.
    """
    if not state.average:
        return state.params, state.stats
    return {**state.params, **state.average["params"]}, {**state.stats, **state.average["stats"]}


def enter(state: State, phase: int) -> State:
    """The state before the first step of a phase, on its own shardings; the phase before it is over.

    Args:
      state: a state, not traced.
      phase: the phase's index; the number of phases where the run is over.
    """
    index, none = (jax.device_put(np.int32(n), x.sharding) for n, x in ((phase, state.phase), (0, state.phase_step)))
    return dataclasses.replace(state, phase=index, phase_step=none)


def which_move(state: State, labels: Tree, learns: Collection[str]) -> State:
    """For each leaf of the state, whether a step of a phase may change it.

    It may change all but the key, the phase's index, and the frozen groups' parameters, averages and moments.

    Args:
      state: the state.
      labels: the group of each parameter.
      learns: the groups that learn.
    """
    moments = state.optimizer.inner_states
    learning = jax.tree.map(lambda label: label in learns, labels)
    average = jax.tree.map(lambda _: True, state.average)
    if average:
        average["params"] = {name: learning[name] for name in average["params"]}
    return dataclasses.replace(
        jax.tree.map(lambda _: True, state),
        params=learning,
        average=average,
        optimizer=state.optimizer._replace(
            inner_states={g: jax.tree.map(lambda _, g=g: g in learns, moments[g]) for g in moments}
        ),
        phase=False,
        key=False,
    )
