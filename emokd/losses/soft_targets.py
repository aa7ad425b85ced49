"""Imitation of a teacher's class probabilities at a temperature (Hinton et al., 2015)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from emokd.losses.shapes import as_floats, check_range, check_same_shape


def kl_divergence(
    student_logits: Float[Array, "B C"], teacher_logits: Float[Array, "B C"], *, temperature: float
) -> Float[Array, " B"]:
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), T the temperature. No gradient flows to the teacher.

    The factor T^2 keeps the gradient's size about the same at every temperature. A class whose teacher's logit is -inf
    (the teacher does not have it) contributes 0.

    Raises:
      InputError: the shapes differ, or the temperature is not positive.

    Examples:
      The teacher says 3/4 and 1/4, the student 1/2 and 1/2: 3/4 log(3/2) + 1/4 log(1/2).

      >>> teacher = jnp.log(jnp.array([[0.75, 0.25]]))
      >>> round(float(kl_divergence(jnp.zeros((1, 2)), teacher, temperature=1.0)[0]), 4)
      0.1308
    """
    check_same_shape(2, student_logits=student_logits, teacher_logits=teacher_logits)
    check_range("temperature", temperature, 0, above=True)
    student, teacher = as_floats(student_logits, lax.stop_gradient(teacher_logits))
    log_s = jax.nn.log_softmax(student / temperature)
    log_t = jax.nn.log_softmax(teacher / temperature)
    p_t = jnp.exp(log_t)
    return temperature**2 * (p_t * jnp.where(p_t > 0, log_t - log_s, 0.0)).sum(-1)
