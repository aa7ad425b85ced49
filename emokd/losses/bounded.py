"""The teacher's bound (Chen et al., NeurIPS 2017): a student that beats its teacher is left in peace.

With smooth L1 it is L_reg = smoothL1(R_s, y) + nu L_b; whoever adds the two takes both means over the same rows.
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

    The comparison carries no gradient, nor does the teacher. Rows that the mask leaves out, and heads whose
    target is NaN, count nothing. A teacher's NaN sets no bound: there L_b is 0.

    Args:
      student: R_s, one column per regressed quantity.
      teacher: R_t.
      target: y.
      margin: m, at least 0: how much better the student's squared error must be than the teacher's.
      joint: False compares each head by itself and sums over heads; True takes |.|^2 over all heads of an
        example, with one comparison. The paper's formula is per head; Chen et al. use the joint form for boxes.
      mask: rows that count.

    Raises:
      InputError: the shapes differ, or the margin is negative.
    """
    check_same_shape(2, student=student, teacher=teacher, target=target)
    check_range("margin", margin, 0)
    student, teacher, target = as_floats(student, lax.stop_gradient(teacher), target)
    labelled = has_value(target) & check_rows(mask, student.shape[0])[:, None]
    target = jnp.where(labelled, target, 0.0)
    own = jnp.where(labelled, student - target, 0.0) ** 2
    theirs = jnp.where(labelled, teacher - target, 0.0) ** 2
    if joint:
        own, theirs = own.sum(-1, keepdims=True), theirs.sum(-1, keepdims=True)
    worse = lax.stop_gradient(own + margin > theirs)
    return jnp.where(worse, own, 0.0).sum(-1)
