"""The student's exponential moving average: scored and stored in its place where `config.ema.decay` is above 0.

It averages parameters and statistics, such as BatchNorm's, as Mean Teacher does (Tarvainen and Valpola, NeurIPS 2017).
Training does not read it: later steps and phases go on from the parameters themselves. It restarts with each phase,
because a phase may begin by replacing the student's parameters.

With decay d the average after n steps is sum_i d^(n-i) x_i / sum_i d^(n-i): Adam's correction of the bias (Kingma and
Ba, ICLR 2015), so that a short phase has the plain mean of its steps rather than mostly its beginning. [ours]
"""

import math
from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from emokd.phase import Recipe, Tree


def student_entries(recipe: Recipe, params: Tree, stats: Tree) -> tuple[Collection[str], Collection[str]]:
    """The top-level keys of parameters and of statistics that hold what `recipe.extract` takes for the student."""

    def names(tree: Tree) -> Tree:
        return {name: jax.tree.map(lambda _, name=name: name, entry) for name, entry in tree.items()}

    student_params, student_stats = recipe.extract(names(params), names(stats))
    return set(jax.tree.leaves(student_params)), set(jax.tree.leaves(student_stats))


def create(recipe: Recipe, decay: float, params: Tree, stats: Tree) -> Tree:
    """The average before any step: the student's `params` and `stats` as they are; empty where `decay` is 0."""
    if not decay:
        return {}
    param_keys, stat_keys = student_entries(recipe, params, stats)
    return {
        "params": {name: params[name] for name in sorted(param_keys)},
        "stats": {name: stats[name] for name in sorted(stat_keys)},
    }


def restart(average: Tree, params: Tree, stats: Tree) -> Tree:
    """A tree like `average` with the values of `params` and `stats`; empty where nothing is averaged."""
    trees = {"params": params, "stats": stats}
    return {kind: {name: trees[kind][name] for name in entries} for kind, entries in average.items()}


def update(average: Tree, params: Tree, stats: Tree, steps: Int[Array, ""], decay: float) -> Tree:
    """The average with one more step in it.

    Args:
      average: as `create` made it.
      params: after the step.
      stats: after the step.
      steps: of the phase so far, this one included.
      decay: from 0 to 1, both excluded; not used where `average` is empty.
    """
    if not average:
        return average
    # expm1, because 1 - d^n loses digits where d is near 1; the minimum, because the first step must not overshoot.
    share = jnp.minimum((1 - decay) / -jnp.expm1(steps.astype(jnp.float32) * math.log(decay)), 1.0)

    def move(old: Array, new: Array) -> Array:
        # Written as a difference, so that frozen values stay the same bit for bit. Counts are not averaged.
        return old + share.astype(old.dtype) * (new - old) if jnp.issubdtype(old.dtype, jnp.floating) else new

    return jax.tree.map(move, average, restart(average, params, stats))
