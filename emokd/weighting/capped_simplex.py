"""Exact solver of a small quadratic programme over the capped simplex: weights of sum 1, each at most a bound."""

import itertools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError

MOST_VARIABLES = 8
_RIDGE = 1e-4  # share of the trace, added to the diagonal: every system is solvable; refinement removes the bias
_REFINEMENTS = 8
_TOLERANCE = 2e-6


def capped_simplex_minimum(
    quadratic: Float[Array, "K K"], linear: Float[Array, " K"], *, bound: float
) -> Float[Array, " K"]:
    """The weights a, with sum 1 and 0 <= a <= bound, that minimise 1/2 d'Qd + c'd for d = a - 1/K.

    The number of operations is fixed. For each active set (some weights held at 0, some at the bound) the other weights
    solve one linear system, and all systems are solved as one batch. Because the problem is convex, a candidate that
    meets the optimality conditions is the minimum. Among equally good weights those nearest to uniform are taken. A
    NaN gives NaN. In float32 the weights are right to about 1e-5; along directions of almost no curvature it is the
    minimum's value that is right, to 1e-6 of the trace. [ours]

    Args:
      quadratic: Q, positive semi-definite.
      linear: c.
      bound: the largest weight allowed, at least 1 / K.

    Raises:
      InputError: the shapes differ, K weights below the bound cannot sum to 1, or K is above `MOST_VARIABLES`.

    Examples:
      The second weight costs nothing; the bound leaves 0.4 for the first.

      >>> weights = capped_simplex_minimum(jnp.zeros((2, 2)), jnp.array([1.0, 0.0]), bound=0.6)
      >>> [round(float(value), 4) for value in weights]
      [0.4, 0.6]
    """
    size = linear.shape[0]
    if quadratic.shape != (size, size):
        raise InputError(f"The quadratic term is {quadratic.shape} for a linear term of {linear.shape}.")
    free, upper = _active_sets(size, bound)
    bound = min(bound, 1.0)
    scale = jnp.trace(quadratic)
    scale = jnp.where(scale > 0, scale, jnp.ones_like(scale))
    quadratic, linear = quadratic / scale, (linear / scale)[None]

    # One system per active set. The last unknown is the multiplier of the sum; held weights keep their start.
    fixed = np.where(free, 0.0, np.where(upper, bound, 0.0) - 1 / size)
    start = np.where(free, -fixed.sum(1, keepdims=True) / free.sum(1, keepdims=True), fixed)
    frame = np.zeros((len(free), size + 1, size + 1))
    frame[:, :size, :size] = np.eye(size) * np.where(free, _RIDGE, 1.0)[:, None]
    frame[:, :size, size] = frame[:, size, :size] = free
    both_free = jnp.asarray(free[:, :, None] & free[:, None])
    systems = jnp.asarray(frame, quadratic.dtype)
    systems = systems.at[:, :size, :size].add(jnp.where(both_free, quadratic[None], 0.0))
    inverses = jnp.linalg.inv(systems)

    def product(steps):
        return jnp.matmul(steps, quadratic, precision=lax.Precision.HIGHEST)

    # Iterative refinement: each pass solves for the residual of the last. In directions with curvature it converges to
    # the minimum without the ridge; along the others it never moves, so that ties end nearest to the start.
    steps = jnp.asarray(start, quadratic.dtype)
    share = jnp.asarray(free / free.sum(1, keepdims=True), quadratic.dtype)
    for turn in range(_REFINEMENTS + 1):
        slopes = product(steps) + linear
        excess = slopes - (slopes * share).sum(1, keepdims=True)
        if turn < _REFINEMENTS:
            right = jnp.pad(jnp.where(free, -excess, 0.0), ((0, 0), (0, 1)))
            steps = steps + jnp.einsum("nij,nj->ni", inverses, right, precision=lax.Precision.HIGHEST)[:, :size]

    # Candidates are ranked by the optimality conditions, which differ to first order; their values only to second.
    weights = steps + 1 / size
    outside = jnp.maximum(-weights, weights - bound).max(1)
    profit = jnp.where(free, jnp.abs(excess), jnp.where(upper, excess, -excess)).max(1)
    violation = jnp.maximum(outside, profit / (1 + jnp.abs(linear).max()))
    best = jnp.argmin(jnp.where(violation < _TOLERANCE, (steps**2).sum(1) - size, violation))
    return jnp.clip(weights[best], 0.0, bound)


def _active_sets(size: int, bound: float) -> tuple[Bool[np.ndarray, "N K"], Bool[np.ndarray, "N K"]]:
    """(free, at the bound) for every active set whose weights can sum to one; all other weights are 0."""
    if size > MOST_VARIABLES:
        raise InputError(
            f"The exact solver takes at most {MOST_VARIABLES} weights, not {size}; its cost doubles with each."
        )
    if bound * size < 1 - 1e-6:
        raise InputError(f"{size} weights of at most {bound} cannot sum to 1. Raise the bound to 1/{size} or more.")
    states = np.array(list(itertools.product((0, 1, 2), repeat=size)))
    free, upper = states == 1, states == 2
    low = upper.sum(1) * bound
    possible = free.any(1) & (low <= 1 + 1e-6) & (low + free.sum(1) * bound >= 1 - 1e-6)
    return free[possible], upper[possible]
