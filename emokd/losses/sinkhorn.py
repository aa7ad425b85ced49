"""Sinkhorn's algorithm for the three problems of a divergence at once, with the costs' rows on several devices.

One loop for OT(x, y), OT(x, x) and OT(y, y). It starts from a falling epsilon, so that the potentials begin near their
values, and goes on at the last epsilon until the marginals are right. The problem of a cloud with itself has one
potential instead of two. A softmin needs the potentials of the whole group and this device's rows of the costs: what is
exchanged in the loop is the potentials alone. [ours]
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from emokd.losses.group import Group

TOLERANCE = 1e-3
"""Largest error of a plan's marginals, in the L1 norm."""
MOST_ITERATIONS = 2000
_FALL = 0.25  # of epsilon from one iteration to the next, until it is the last
# Over-relaxation of the potentials between two clouds (Thibault et al., 2021): the same fixed point in half the
# iterations. At 1.7 it may diverge.
_OVERRELAXATION = 1.4
# Of a cloud's potential with itself. Near the fixed point the softmin turns an error u into -K u, K having eigenvalues
# between 0 and 1; so a step of 2/3 leaves at most a third of it, one of 1/2 a half.
_SYMMETRIC_STEP = 2 / 3
# Iterations between two exchanges of whether any group needs more of them.
_TURNS = 4


def solve(
    student: Float[Array, "B K"], teacher: Float[Array, "B K"], weights: Float[Array, " B"], blur: float, group: Group
) -> tuple[Array, tuple[Array, ...]]:
    """S and (cost, iterations, error, converged), see `transport.Transport`; S is differentiable by the student.

    By Danskin's theorem the gradient of an optimal value is that of the costs under the plan, the potentials held.

    Args:
      student: y, the points of the whole group.
      teacher: x.
      weights: of the points, the same for both clouds; 0 for those that do not count.
      blur: the square root of the last epsilon.
      group: which rows of the costs this device works out.
    """
    last = blur**2
    log_weights = jnp.log(weights)[None]
    own_student, own_teacher = group.own(student), group.own(teacher)
    moving = jnp.stack([half_squares(own_student, teacher), half_squares(own_student, student)])
    of_student = lax.stop_gradient(moving)
    of_teacher = lax.stop_gradient(jnp.stack([half_squares(own_teacher, student), half_squares(own_teacher, teacher)]))

    def softmins(costs, potentials, epsilon):
        """Of two problems, [2, B], from the potentials of the points that each row's mass goes to."""
        exponents = (log_weights + potentials / epsilon)[:, None, :] - costs / epsilon
        return group.join(-epsilon * jax.nn.logsumexp(exponents, axis=-1), axis=1)

    def errors(potentials, found):
        """L1 errors of both plans: a row's mass, over its weight, is exp((potential - softmin) / epsilon)."""
        return (weights[None] * jnp.abs(jnp.expm1((potentials - found) / last))).sum(-1)

    mass = weights > 0
    pairs = group.own(mass)[:, None] & mass[None, :]
    start = -group.smallest(-jnp.where(pairs, of_student[0], 0.0).max())

    def iterate(carry):
        i, _, _, (f, x_self), (g, y_self) = carry
        epsilon = jnp.maximum(start * _FALL**i, last)
        falling = epsilon > last
        between = jnp.where(falling, 1.0, _OVERRELAXATION).astype(start.dtype)
        step = jnp.stack([between, jnp.full_like(between, _SYMMETRIC_STEP)])[:, None]
        theirs = jnp.stack([f, x_self])
        found = softmins(of_teacher, jnp.stack([g, x_self]), epsilon)
        error = errors(theirs, found).max()
        theirs += step * (found - theirs)
        own = jnp.stack([g, y_self])
        found = softmins(of_student, jnp.stack([theirs[0], y_self]), epsilon)
        error = jnp.maximum(error, errors(own, found).max())
        own += step * (found - own)
        # An error that is not finite will not become so: `not above`.
        done = ~falling & ~(error >= TOLERANCE)
        return i + 1, error, done, (theirs[0], theirs[1]), (own[0], own[1])

    def turns(carry):
        going, carry = carry
        for _ in range(1 if group.devices == 1 else _TURNS):
            i, _, done, *_ = carry
            stay = done | (i >= MOST_ITERATIONS)
            carry = jax.tree.map(lambda old, new: jnp.where(stay, old, new), carry, iterate(carry))  # noqa: B023
        i, _, done, *_ = carry
        return group.anywhere(~done & (i < MOST_ITERATIONS)), carry

    nothing = jnp.zeros_like(weights)
    zero = jnp.zeros((), weights.dtype)
    begin = (zero, zero + jnp.inf, jnp.zeros((), bool), (nothing, nothing), (nothing, nothing))
    _, (iterations, error, _, (f, x_self), (g, y_self)) = lax.while_loop(
        lambda carry: carry[0], turns, (jnp.ones((), bool), begin)
    )

    # What the potentials say of plans: rows of y to x, y to y and x to x.
    costs = jnp.concatenate([of_student, of_teacher[1:]])
    rows, columns = jnp.stack([g, y_self, x_self]), jnp.stack([f, y_self, x_self])
    logs = (log_weights + rows / last)[:, :, None], (log_weights + columns / last)[:, None, :]
    plans = jnp.exp(group.own(logs[0], axis=1) + logs[1] - costs / last)
    # The dual values, corrected for the mass that the plans lack: their errors are squares of the potentials'.
    moved = group.total(plans.sum((1, 2)))
    values = (weights[None] * (rows + columns)).sum(-1) + last * (1 - moved)
    # Zero, with the gradient of the costs under the plans.
    slopes = group.total((lax.stop_gradient(plans[:2]) * (moving - of_student)).sum((1, 2)))
    divergence = values[0] - (values[1] + values[2]) / 2 + slopes[0] - slopes[1] / 2
    cost = (weights * (f + g)).sum()
    converged = (error < TOLERANCE).astype(weights.dtype)
    return divergence, (cost, iterations, error, converged)


def half_squares(x: Float[Array, "R K"], y: Float[Array, "B K"]) -> Float[Array, "R B"]:
    """|x_i - y_j|^2 / 2."""
    squares = (x**2).sum(-1)[:, None] + (y**2).sum(-1)[None, :]
    return squares / 2 - jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
