"""The quadratic programme of AEKD, against SLSQP in float64 and against its optimality conditions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from emokd.errors import InputError
from emokd.weighting.capped_simplex import MOST_VARIABLES, capped_simplex_minimum


@functools.partial(jax.jit, static_argnames="bound")
def solve(quadratic, linear, *, bound):
    return capped_simplex_minimum(quadratic, linear, bound=bound)


def problem(rng, size, dimensions):
    gradients = rng.normal(size=(size, dimensions)) * rng.lognormal(sigma=1.0, size=(size, 1))
    mean = gradients.mean(0) + 0.3 * rng.normal() * gradients[0]
    centred = gradients - gradients.mean(0)
    return centred @ centred.T, centred @ mean


def reference(quadratic, linear, bound):
    size = len(linear)
    scale = np.trace(quadratic)

    def value(a):
        d = a - 1 / size
        return (d @ quadratic @ d / 2 + linear @ d) / scale

    found = optimize.minimize(
        value,
        np.full(size, 1 / size),
        jac=lambda a: (quadratic @ (a - 1 / size) + linear) / scale,
        bounds=[(0, bound)] * size,
        constraints={
            "type": "eq",
            "fun": lambda a: a.sum() - 1,
            "jac": lambda a: np.ones(size),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x, value


@pytest.mark.parametrize(("size", "bound"), [(2, 0.6), (3, 0.34), (3, 0.6), (5, 0.34), (5, 1.0)])
def test_agrees_with_slsqp(size, bound):
    rng = np.random.default_rng(size)
    for _ in range(20):
        quadratic, linear = problem(rng, size, 40)
        ours = np.asarray(solve(jnp.float32(quadratic), jnp.float32(linear), bound=bound), np.float64)
        np.testing.assert_allclose(ours.sum(), 1, atol=2e-6)
        assert ours.min() >= 0 and ours.max() <= bound + 1e-6
        theirs, value = reference(quadratic, linear, bound)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert value(ours) <= value(theirs) + 1e-6


def test_largest_size_satisfies_the_optimality_conditions():
    rng = np.random.default_rng(3)
    quadratic, linear = problem(rng, MOST_VARIABLES, 60)
    a = np.asarray(
        solve(jnp.float32(quadratic), jnp.float32(linear), bound=0.3),
        np.float64,
    )
    slope = (quadratic @ (a - 1 / len(a)) + linear) / np.trace(quadratic)
    lowered, raised = a > 1e-4, a < 0.3 - 1e-4
    # No weight can be moved from one that may fall to one that may rise at a profit.
    assert slope[lowered].max() - slope[raised].min() < 1e-5


def test_gradients_of_very_different_length_are_right_in_value():
    rng = np.random.default_rng(5)
    for _ in range(20):
        gradients = rng.normal(size=(5, 40)) * 10 ** rng.uniform(-2, 1, size=(5, 1))
        centred = gradients - gradients.mean(0)
        quadratic, linear = centred @ centred.T, centred @ gradients.mean(0)
        ours = np.asarray(solve(jnp.float32(quadratic), jnp.float32(linear), bound=0.6), np.float64)
        theirs, value = reference(quadratic, linear, 0.6)
        assert value(ours) <= value(theirs) + 1e-6


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_nothing_to_choose_gives_uniform(size):
    a = solve(jnp.zeros((size, size)), jnp.zeros(size), bound=1.0)
    np.testing.assert_allclose(a, np.full(size, 1 / size), atol=1e-6)


def test_a_linear_problem_is_filled_from_the_lowest():
    a = solve(jnp.zeros((3, 3)), jnp.array([0.0, 5.0, -1.0]), bound=0.6)
    np.testing.assert_allclose(a, [0.4, 0.0, 0.6], atol=1e-6)


def test_the_tightest_bound_leaves_one_answer():
    quadratic, linear = problem(np.random.default_rng(0), 3, 10)
    a = solve(jnp.float32(quadratic), jnp.float32(linear), bound=1 / 3)
    np.testing.assert_allclose(a, [1 / 3] * 3, atol=1e-5)


def test_nan_is_not_hidden():
    assert np.isnan(solve(jnp.full((2, 2), jnp.nan), jnp.zeros(2), bound=0.6)).all()


def test_impossible_problems_are_refused():
    with pytest.raises(InputError, match="cannot sum to 1"):
        capped_simplex_minimum(jnp.eye(3), jnp.zeros(3), bound=0.3)
    with pytest.raises(InputError, match="at most 8"):
        capped_simplex_minimum(jnp.eye(9), jnp.zeros(9), bound=0.6)
    with pytest.raises(InputError, match="quadratic term"):
        capped_simplex_minimum(jnp.eye(2), jnp.zeros(3), bound=0.6)
