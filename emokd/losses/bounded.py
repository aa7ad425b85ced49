"""The teacher-bounded regression loss (Chen et al., NeurIPS 2017): 0 where the student beats its teacher.

The paper's L_reg is smoothL1(R_s, y) + nu L_b. A caller that adds the two must average both over the same rows.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from emokd.labels import has_value
from emokd.losses.shapes import as_floats, check_range, check_rows, check_same_shape


def teacher_bound(
    student: Float[Array, "B H"],
    teacher: Float[Array, "B H"],
    target: Float[Array, "B H"],
    *,
    margin: float = 0.0,
    joint: bool = False,
    mask: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """L_b: |R_s - y|^2 where |R_s - y|^2 + margin > |R_t - y|^2, else 0.

    No gradient flows through the comparison, nor to the teacher. Rows that the mask excludes, and heads whose
    target is NaN, contribute 0. Where the teacher's prediction is NaN it sets no bound, and L_b is 0. A student's error
    that is not finite makes L_b not finite, whatever the teacher's.

    Args:
      student: R_s, the student's predictions, one column per head (valence, arousal).
      teacher: R_t, the teacher's predictions.
      target: y, the labels.
      margin: m, at least 0: how much smaller than the teacher's the student's squared error must be.
      joint: False compares each head separately and sums over heads; True makes one comparison per example, of |.|^2
        over all heads. The paper's formula (bounded.md) is per head; Chen et al. use the joint form for boxes.
      mask: rows that count; None for all.

    Raises:
      InputError: the shapes differ, or the margin is negative.

    Examples:
      The teacher is wrong by 1 on both rows, the student by 0.5 and by 2.

      >>> teacher_bound(jnp.array([[0.5], [2.0]]), jnp.ones((2, 1)), jnp.zeros((2, 1))).tolist()
      [0.0, 4.0]
    """
    check_same_shape(2, student=student, teacher=teacher, target=target)
    check_range("margin", margin, 0)
    student, teacher, target = as_floats(student, lax.stop_gradient(teacher), target)
    labelled = has_value(target) & check_rows(mask, student.shape[0])[:, None]
    target = jnp.where(labelled, target, 0.0)
    student_error = jnp.where(labelled, student - target, 0.0) ** 2
    teacher_error = jnp.where(labelled, teacher - target, 0.0) ** 2
    if joint:
        student_error, teacher_error = student_error.sum(-1, keepdims=True), teacher_error.sum(-1, keepdims=True)
    # A student's error that is not finite is never within the bound, or the loss would hide it.
    worse = lax.stop_gradient((student_error + margin > teacher_error) | ~jnp.isfinite(student_error))
    return jnp.where(worse, student_error, 0.0).sum(-1)
