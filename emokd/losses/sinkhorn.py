"""Sinkhorn's algorithm for the three problems of a divergence at once, with the costs' rows on several devices.

One loop for OT(x, y), OT(x, x) and OT(y, y). It starts from a falling epsilon, so that the potentials begin near their
values, and goes on at the last epsilon until the marginals are right. The problem of a cloud with itself has one
potential instead of two. An iteration needs the potentials of the whole group and this device's rows of the costs:
what is exchanged in the loop is a number for each row. [ours]
"""

import functools

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
_LARGEST_EXPONENT = 60.0
_SMALLEST_MASS = 1e-30
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
    own_student, own_teacher = group.own(student), group.own(teacher)
    moving = jnp.stack([half_squares(own_student, teacher), half_squares(own_student, student)])
    of_student = lax.stop_gradient(moving)
    of_teacher = lax.stop_gradient(jnp.stack([half_squares(own_teacher, student), half_squares(own_teacher, teacher)]))

    def masses(costs, rows, columns, epsilon):
        """What the plans move out of each of this device's points, over the point's weight: 1 where they are right.

        By the potentials [2, B] of the rows and of the columns. No maximum has to be taken out of the sum, because the
        potentials are those of an epsilon at most four times as large; the bounds are for what is far off even so.
        """
        exponents = (group.own(rows, axis=1)[:, :, None] + columns[:, None, :] - costs) / epsilon
        return (weights[None, None] * jnp.exp(jnp.minimum(exponents, _LARGEST_EXPONENT))).sum(-1)

    def move(costs, rows, columns, epsilon, step):
        """Potentials of the rows after an iteration, and the L1 error of the marginals before it."""
        mass = group.join(masses(costs, rows, columns, epsilon), axis=1)
        error = (weights[None] * jnp.abs(mass - 1)).sum(-1).max()
        return rows - step * epsilon * jnp.log(jnp.maximum(mass, _SMALLEST_MASS)), error

    mass = weights > 0
    pairs = group.own(mass)[:, None] & mass[None, :]
    start = -group.smallest(-jnp.where(pairs, of_student[0], 0.0).max())

    def iterate(carry):
        i, _, _, first, second = carry  # potentials [2, B]: of x to y and to itself; of y to x and to itself
        epsilon = jnp.maximum(start * _FALL**i, last)
        between = jnp.where(epsilon > last, 1.0, _OVERRELAXATION).astype(start.dtype)
        step = jnp.stack([between, jnp.full_like(between, _SYMMETRIC_STEP)])[:, None]
        first, error = move(of_teacher, first, jnp.stack([second[0], first[1]]), epsilon, step)
        second, other = move(of_student, second, jnp.stack([first[0], second[1]]), epsilon, step)
        error = jnp.maximum(error, other)
        # An error that is not finite will not become so: `not above`.
        done = (epsilon <= last) & ~(error >= TOLERANCE) | (i + 1 >= MOST_ITERATIONS)
        return i + 1, error, done, first, second

    def turns(carry):
        if group.devices == 1:
            return iterate(carry)
        # The iterations between two exchanges; a group that needs no more of them keeps what it has.
        _, carry = carry
        for _ in range(_TURNS):
            carry = jax.tree.map(functools.partial(jnp.where, carry[2]), carry, iterate(carry))
        return group.anywhere(~carry[2]), carry

    nothing = jnp.zeros((2, *weights.shape), weights.dtype)
    zero = jnp.zeros((), weights.dtype)
    begin = (zero, zero + jnp.inf, jnp.zeros((), bool), nothing, nothing)
    if group.devices == 1:
        end = lax.while_loop(lambda carry: ~carry[2], turns, begin)
    else:
        _, end = lax.while_loop(lambda carry: carry[0], turns, (jnp.ones((), bool), begin))
    iterations, error, _, (f, x_self), (g, y_self) = end

    # What the potentials say of plans: rows of y to x, y to y and x to x.
    rows, columns = jnp.stack([g, y_self, x_self]), jnp.stack([f, y_self, x_self])
    exponents = (group.own(rows, axis=1)[:, :, None] + columns[:, None, :]) / last
    exponents -= jnp.concatenate([of_student, of_teacher[1:]]) / last
    # Between points without mass exponents may be of any size.
    densities = jnp.exp(jnp.minimum(exponents, _LARGEST_EXPONENT))
    plans = group.own(weights)[None, :, None] * weights[None, None] * densities
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
