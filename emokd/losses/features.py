"""Distances between a student's features, after its adapter, and a teacher's."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from emokd.losses.shapes import as_floats, check_same_shape

_SMALLEST_SQUARE = 1e-16


def mean_squared(student: Float[Array, "B D"], teacher: Float[Array, "B D"]) -> Float[Array, " B"]:
    """SMKD's distance d: the mean over dimensions of the squared difference. [ours, smkd.md]

    No gradient flows to the teacher.

    Raises:
      InputError: the shapes differ.

    Example:
      >>> mean_squared(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
      [2.0]
    """
    check_same_shape(2, student=student, teacher=teacher)
    student, teacher = as_floats(student, lax.stop_gradient(teacher))
    return ((student - teacher) ** 2).mean(-1)


def cosine(student: Float[Array, "B D"], teacher: Float[Array, "B D"]) -> Float[Array, " B"]:
    """1 - cosine similarity, in [0, 2]; 1 where either vector is zero. [ours, smkd.md]

    No gradient flows to the teacher.

    Raises:
      InputError: the shapes differ.

    Example:
      Equal directions, and a right angle.
      >>> loss = cosine(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[2.0, 0.0], [0.0, 3.0]]))
      >>> [round(float(value), 4) for value in loss]
      [0.0, 1.0]
    """
    check_same_shape(2, student=student, teacher=teacher)
    student, teacher = as_floats(student, lax.stop_gradient(teacher))
    student, teacher = _scaled_down(student), _scaled_down(teacher)
    # The squares are clamped before the root, so that the gradient at a zero vector is finite.
    squares = jnp.maximum((student**2).sum(-1), _SMALLEST_SQUARE), jnp.maximum((teacher**2).sum(-1), _SMALLEST_SQUARE)
    return 1 - (student * teacher).sum(-1) * lax.rsqrt(squares[0]) * lax.rsqrt(squares[1])


def _scaled_down(values: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Divides each row by its largest magnitude where that exceeds 1, so that squares do not overflow.

    The cosine does not depend on the scale.
    """
    return values / lax.stop_gradient(jnp.maximum(jnp.abs(values).max(-1, keepdims=True), 1.0))
