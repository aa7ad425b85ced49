"""The structure of a batch: the cosine similarities between its examples' features, and losses on them (MT-PKDOT).

Every function takes a `mask` of the examples that count. The similarities of an example that does not count are 0,
without gradient, and it is never an anchor. So it changes neither the clouds nor the centroids of the others.

A batch of B examples may lie on several devices, R rows on each. Every function then takes the features and the mask of
all B, and a `group` that says which rows are this device's; it gives those R rows. On one device R is B.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from emokd.errors import InputError
from emokd.losses.directions import directions
from emokd.losses.group import ALONE, Group
from emokd.losses.shapes import as_floats, check_rows, check_same_shape


class Clouds(NamedTuple):
    """Two clouds of points, one point per row of similarities.

    Attributes:
      student: Y, the student's points.
      teacher: X, the teacher's points; no gradient flows to them.
    """

    student: Float[Array, "R K"]
    teacher: Float[Array, "R K"]


def cosine_similarities(
    features: Float[Array, "B D"], *, mask: Bool[Array, " B"] | None = None, group: Group = ALONE
) -> Float[Array, "R B"]:
    """S: the cosine of each pair of rows. A row of zeros has similarity 0 to every row, and no gradient.

    A row counts as zeros where no entry reaches 1e-35.

    Args:
      features: one row per example. Scaling a row by a positive factor changes nothing.
      mask: examples that count; the rows and columns of the others are 0.
      group: which rows are this device's.

    Raises:
      InputError: the features are not a matrix, or the mask does not fit.

    Examples:
      >>> cosine_similarities(jnp.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).round(4).tolist()
      [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    """
    check_same_shape(2, features=features)
    mask = check_rows(mask, features.shape[0])
    (features,) = as_floats(features)
    unit = directions(jnp.where(mask[:, None], features, 0.0))
    return jnp.matmul(group.own(unit), unit.T, precision=lax.Precision.HIGHEST)


def anchors(
    similarities: Float[Array, "R B"],
    k: int,
    *,
    nearest: bool = False,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> tuple[Int[Array, "R K"], Bool[Array, "R K"]]:
    """The anchors of each example: the k other examples that are least similar to it, in ascending order of similarity.

    The authors' release picks the least similar too (mtpkdot.md), in the order of a partial sort. Here they are sorted,
    so that the result is reproducible and coordinate r means "the r-th least similar". An example is never its own
    anchor. [ours]

    Args:
      similarities: the teacher's S.
      k: anchors per row, 1 to B - 1.
      nearest: whether to take the k most similar instead, in ascending order too. [ours]
      mask: examples that count; the others are never anchors.
      group: which rows are this device's.

    Returns:
      (columns, filled). `columns` holds the anchors' indices; ties are in order of their index (reversed for
      `nearest`). `filled` says which entries are anchors: where fewer than k other examples count, the rest are not.

    Raises:
      InputError: k is not between 1 and B - 1, or the shapes do not fit.

    Examples:
      >>> columns, filled = anchors(jnp.array([[1.0, 0.2, -0.5], [0.2, 1.0, 0.9], [-0.5, 0.9, 1.0]]), 1)
      >>> columns.tolist(), bool(filled.all())
      ([[2], [0], [0]], True)
    """
    check_same_shape(2, similarities=similarities)
    rows = similarities.shape[1]
    if similarities.shape[0] * group.devices != rows:
        raise InputError(f"Similarities must be square, not {list(similarities.shape)}.")
    if not 1 <= k < rows:
        raise InputError(
            f"{k} anchors per example need a batch of more than {max(k, 1)}, and at least one anchor; "
            f"this batch has {rows}: use fewer anchors or a larger batch."
        )
    indices = jnp.arange(rows)
    others = check_rows(mask, rows)[None, :] & (group.own(indices)[:, None] != indices[None, :])
    sign = 1.0 if nearest else -1.0
    _, columns = lax.top_k(jnp.where(others, sign * similarities, -jnp.inf), k)
    if nearest:
        columns = columns[:, ::-1]
    return columns, jnp.take_along_axis(others, columns, axis=1)


def clouds(
    student: Float[Array, "B D"],
    teacher: Float[Array, "B E"],
    *,
    k: int = 30,
    nearest: bool = False,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> Clouds:
    """The batch's structure as two clouds: X_i = S~_T[i, idx_i] and Y_i = S~_S[i, idx_i], S~ = S - min S.

    The anchors idx_i come from the teacher's S, for both clouds.

    Args:
      student: the student's features; the gradient flows through min S too.
      teacher: the teacher's features, of any width; no gradient flows to them.
      k: anchors per example (30 in the release), at most B - 1; 0 takes the whole rows of S~, unsorted.
      nearest: as in `anchors`.
      mask: examples that count. Rows of the others, and coordinates without an anchor, are 0.
      group: which rows are this device's.

    Raises:
      InputError: the batches differ, k is negative or not below B, or the mask does not fit.

    Examples:
      Features that are the teacher's, turned by a right angle, have the teacher's structure.

      >>> teacher = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> student = jnp.array([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
      >>> points = clouds(student, teacher, k=2)
      >>> points.student.round(4).tolist() == points.teacher.round(4).tolist()
      True
    """
    similarities_s, similarities_t, mask = _both(student, teacher, mask, group)
    return clouds_of_similarities(similarities_s, similarities_t, k=k, nearest=nearest, mask=mask, group=group)


def clouds_of_similarities(
    student: Float[Array, "R B"],
    teacher: Float[Array, "R B"],
    *,
    k: int = 30,
    nearest: bool = False,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> Clouds:
    """`clouds` from similarities that were computed before, by `cosine_similarities` with this mask.

    Args:
      student: the student's S.
      teacher: the teacher's S.
      k: as in `clouds`.
      nearest: as in `anchors`.
      mask: as in `clouds`.
      group: as in `clouds`.

    Raises:
      InputError: the batches differ, k is negative or not below B, or the mask does not fit.
    """
    check_same_shape(2, student=student, teacher=teacher)
    mask = check_rows(mask, student.shape[1])
    shifted_s, shifted_t = _shift(student, mask, group), _shift(teacher, mask, group)
    if k == 0:
        return Clouds(shifted_s, shifted_t)
    columns, filled = anchors(teacher, k, nearest=nearest, mask=mask, group=group)
    filled &= group.own(mask)[:, None]
    points = (jnp.where(filled, jnp.take_along_axis(s, columns, axis=1), 0.0) for s in (shifted_s, shifted_t))
    return Clouds(*points)


def centroid_distance(
    student: Float[Array, "B D"],
    teacher: Float[Array, "B E"],
    *,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> Float[Array, " R"]:
    """L_cent = |mean of the rows of S_T - mean of the rows of S_S|_2, repeated on every row that counts.

    This is a loss of the whole batch: its value, and its gradient, are the mean of these values over the rows that
    count. Where the centroids are equal it is 0 and has no gradient. No gradient flows to the teacher. (MT-PKDOT,
    mtpkdot.md)

    Raises:
      InputError: the batches differ, or the mask does not fit.

    Examples:
      Two right angles against two equal rows: centroids (1/2, 1/2) and (1, 1).

      >>> distance = centroid_distance(jnp.eye(2), jnp.ones((2, 2)))
      >>> [round(float(value), 4) for value in distance]
      [0.7071, 0.7071]
    """
    similarities_s, similarities_t, mask = _both(student, teacher, mask, group)
    return centroid_distance_of_similarities(similarities_s, similarities_t, mask=mask, group=group)


def centroid_distance_of_similarities(
    student: Float[Array, "R B"],
    teacher: Float[Array, "R B"],
    *,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> Float[Array, " R"]:
    """`centroid_distance` from similarities that were computed before, by `cosine_similarities` with this mask."""
    mask = check_rows(mask, student.shape[1])
    count = jnp.maximum(mask.sum(), 1).astype(student.dtype)
    square = ((group.total((teacher - student).sum(0)) / count) ** 2).sum()
    differs = square != 0  # not `> 0`, which would take a NaN for equality
    distance = jnp.where(differs, jnp.sqrt(jnp.where(differs, square, 1.0)), 0.0)
    return jnp.where(group.own(mask), distance, 0.0)


def _both(student: Array, teacher: Array, mask: Array | None, group: Group) -> tuple[Array, Array, Array]:
    """Checks the features and the mask: (student's S, teacher's S, mask)."""
    if student.ndim != 2 or teacher.ndim != 2 or student.shape[0] != teacher.shape[0]:
        raise InputError(
            "Features must be [batch, width] with one batch for student and teacher, not "
            f"{list(student.shape)} and {list(teacher.shape)}."
        )
    mask = check_rows(mask, student.shape[0])
    student, teacher = as_floats(student, lax.stop_gradient(teacher))
    of_student, of_teacher = (cosine_similarities(x, mask=mask, group=group) for x in (student, teacher))
    return of_student, of_teacher, mask


def _shift(similarities: Array, mask: Array, group: Group) -> Array:
    """S - min S over the pairs that count; 0 for the others."""
    pairs = group.own(mask)[:, None] & mask[None, :]
    lowest = group.smallest(jnp.where(pairs, similarities, jnp.inf).min())
    # Of equal minima each has its share of the gradient, on whatever device it is.
    least = pairs & (similarities == lowest)
    count = jnp.maximum(group.total(least.sum()), 1).astype(similarities.dtype)
    share = group.total((jnp.where(least, similarities - lowest, 0.0) / count).sum())
    return jnp.where(pairs, similarities - (lowest + share), 0.0)
