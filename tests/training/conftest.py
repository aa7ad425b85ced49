"""Fixtures of the small linear recipe."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from linear_recipe import CLASSES, INPUTS, make_config, make_recipe, make_splits

from emokd.data.examples import Examples
from emokd.phase import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe()


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    return make_config()


@pytest.fixture
def batch() -> dict:
    rng = np.random.default_rng(1)
    return {
        "x": jnp.asarray(rng.normal(size=(16, INPUTS)), jnp.float32),
        "expression": jnp.asarray(rng.integers(0, CLASSES, 16), jnp.int32),
        "mask": jnp.asarray([True] * 13 + [False] * 3),
    }


@pytest.fixture
def splits() -> dict[str, Examples]:
    return make_splits()


@pytest.fixture(scope="module")
def fresh():
    """Makers of (recipe, config, splits), for module-wide runs."""
    return lambda: (make_recipe(), make_config(), make_splits())
