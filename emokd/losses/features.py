"""Distances between a student's features, after its adapter, and a teacher's."""

from jax import lax
from jaxtyping import Array, Float

from emokd.losses.directions import directions
from emokd.losses.shapes import as_floats, check_same_shape


def mean_squared(student: Float[Array, "B D"], teacher: Float[Array, "B D"]) -> Float[Array, " B"]:
    """SMKD's distance d: the mean over dimensions of the squared difference. [ours, smkd.md]

    No gradient flows to the teacher.

    Raises:
      InputError: the shapes differ.

    Examples:
      >>> mean_squared(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
      [2.0]
    """
    check_same_shape(2, student=student, teacher=teacher)
    student, teacher = as_floats(student, lax.stop_gradient(teacher))
    return ((student - teacher) ** 2).mean(-1)


def cosine(student: Float[Array, "B D"], teacher: Float[Array, "B D"]) -> Float[Array, " B"]:
    """1 - cosine similarity, in [0, 2]; 1, without gradient, where either vector is zero. [ours, smkd.md]

    A vector counts as zero where no entry reaches 1e-35. No gradient flows to the teacher.

    Raises:
      InputError: the shapes differ.

    Examples:
      Equal directions, and a right angle.

      >>> loss = cosine(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[2.0, 0.0], [0.0, 3.0]]))
      >>> [round(float(value), 4) for value in loss]
      [0.0, 1.0]
    """
    check_same_shape(2, student=student, teacher=teacher)
    student, teacher = as_floats(student, lax.stop_gradient(teacher))
    return 1 - (directions(student) * directions(teacher)).sum(-1)
