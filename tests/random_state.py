"""Parameters and states of random numbers: compiling a fresh state takes as long as compiling a step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from emokd.phase import Recipe
from emokd.training.state import State, create_state


def random_tree(tree: Any, seed: int) -> Any:
    """Random numbers in the shapes of a tree; they keep what passes through alive."""
    rng = np.random.default_rng(seed)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(x.shape) < 2:  # biases, scales, and statistics, of which some are variances
            return rng.uniform(0.5, 1.0, x.shape).astype(x.dtype)
        return (rng.normal(size=x.shape) * np.prod(x.shape[:-1]) ** -0.5).astype(x.dtype)

    return jax.tree.map(draw, tree)


def fill(abstract: State) -> State:
    """A state with these shapes at step 0: random parameters and statistics; the optimiser has no moments yet."""
    abstract = dataclasses.replace(abstract, key=jax.ShapeDtypeStruct((), jnp.int32))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    return dataclasses.replace(
        state, params=random_tree(state.params, 1), stats=random_tree(state.stats, 2), key=jax.random.key(0)
    )


def random_state(recipe: Recipe, config: ml_collections.ConfigDict, classes: int) -> State:
    """In place of `create_state`, on the default device."""
    abstract = jax.eval_shape(lambda: create_state(recipe, config, classes, jax.random.key(0)))
    return jax.device_put(fill(abstract))
