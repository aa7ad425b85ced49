"""The evidence that weightings read: which rows have labels, and each teacher's error on them."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError
from emokd.labels import Labels, has_class


def cross_entropies(teacher_logits: Float[Array, "B K C"], labels: Labels) -> Float[Array, "B K"]:
    """CE_ik: each teacher's cross-entropy on each example, [B, K]; 0 where there is no label, at most 3.4e38.

    A class id of C or more is taken as C - 1; `Evidence.impossible` marks such rows.

    Examples:
      Two teachers give the label the probabilities 1/2 and 1/4.

      >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.25, 0.75]]]))
      >>> [round(float(value), 4) for value in cross_entropies(logits, jnp.array([0]))[0]]
      [0.6931, 1.3863]
    """
    log_p = jax.nn.log_softmax(teacher_logits.astype(jnp.float32))
    labelled = has_class(labels)[:, None]
    if labels.ndim == 1:
        # Not mode="fill" with NaN: XLA's CPU compiler drops such a NaN where an exponential follows.
        ids = jnp.clip(labels, 0, teacher_logits.shape[-1] - 1)[:, None, None]
        values = -jnp.take_along_axis(log_p, ids, axis=-1, mode="clip")[..., 0]
    else:
        target = labels.astype(jnp.float32)[:, None]
        values = -jnp.where(target == 0, 0.0, target * log_p).sum(-1)
    # Teachers that do not have the label's class, or whose logits are far apart, are equally wrong.
    return jnp.where(labelled, jnp.minimum(values, jnp.finfo(jnp.float32).max), 0.0)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a weighting may read, see `emokd.weighting.transform`. Absent parts are None; there always is a mask.

    Attributes:
      teacher_logits: [B, K, C].
      labels: class ids [B], or distributions [B, C].
      gradients: [B, K, D].
      mask: bool [B], False on padding.
      given_errors: errors that the recipe computed [B, K], in place of the cross-entropy.
    """

    teacher_logits: Array | None
    labels: Array | None
    gradients: Array | None
    mask: Array
    given_errors: Array | None = None

    @property
    def errors(self) -> Float[Array, "B K"]:
        """Each teacher's error: what the recipe computed, else the cross-entropy; 0 where there is no label."""
        if self.given_errors is not None:
            return jnp.where(jnp.isnan(self.given_errors), 0.0, self.given_errors)
        return cross_entropies(*self._answered)

    @property
    def scored(self) -> Bool[Array, "B 1"]:
        """Rows that have a label and are not padding."""
        if self.given_errors is not None:
            return (~jnp.isnan(self.given_errors).any(-1) & self.mask)[:, None]
        return (has_class(self.labels) & self.mask)[:, None]

    @property
    def impossible(self) -> Bool[Array, "B 1"]:
        """Rows, padding aside, whose class id is higher than the teachers know."""
        if self.given_errors is not None:
            return jnp.zeros_like(self.mask)[:, None]
        logits, labels = self._answered
        if labels.ndim == 2:
            return jnp.zeros_like(self.mask)[:, None]
        return ((labels >= logits.shape[-1]) & self.mask)[:, None]

    @property
    def _answered(self) -> tuple[Float[Array, "B K C"], Array]:
        """The teachers' logits and the labels."""
        assert self.teacher_logits is not None and self.labels is not None  # `checked`: no errors are given
        return self.teacher_logits, self.labels


def checked(
    name: str,
    reads: Collection[str],
    weights: Float[Array, "B K"],
    given: Mapping[str, Any],
) -> Evidence:
    """Checks the evidence in an update's keyword arguments against the weights, and returns it.

    Args:
      name: the weighting's, for messages.
      reads: the parts of the evidence that it needs.
      weights: the incoming weights, float32.
      given: the keyword arguments of `update`.

    Raises:
      InputError: a part that the weighting reads is missing, or a shape or dtype is wrong.
    """
    errors = given.get("errors")
    for part in sorted(reads):
        # Without errors, the cross-entropy of logits and labels takes their place.
        for key in ("teacher_logits", "labels") if part == "errors" and errors is None else (part,):
            if given.get(key) is None:
                raise InputError(f"The weighting {name!r} needs {key!r}, which this recipe or this data does not give.")
    if weights.ndim != 2 or weights.dtype != jnp.float32:
        raise InputError(f"{name}: weights must be float32 [batch, teachers], not {weights.dtype} {weights.shape}.")
    batch, teachers = weights.shape
    logits, labels, gradients, mask = (given.get(k) for k in ("teacher_logits", "labels", "gradients", "mask"))
    if errors is not None and errors.shape != (batch, teachers):
        raise InputError(f"{name}: errors must be [{batch}, {teachers}], not {list(errors.shape)}.")
    for key, value in (("teacher_logits", logits), ("gradients", gradients)):
        if value is not None and (value.ndim != 3 or value.shape[:2] != (batch, teachers)):
            raise InputError(f"{name}: {key} must be [{batch}, {teachers}, ...], not {list(value.shape)}.")
    if labels is not None:
        ids = labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer)
        votes = labels.ndim == 2 and jnp.issubdtype(labels.dtype, jnp.floating)
        if not (ids or votes) or labels.shape[0] != batch:
            raise InputError(
                f"{name}: labels must be integer [{batch}] or floating [{batch}, classes], "
                f"not {labels.dtype} {list(labels.shape)}."
            )
        if votes and logits is not None and labels.shape[1] != logits.shape[2]:
            raise InputError(f"{name}: labels have {labels.shape[1]} classes, the teachers' logits {logits.shape[2]}.")
    if mask is None:
        mask = jnp.ones(batch, bool)
    if mask.shape != (batch,) or mask.dtype != jnp.bool_:
        raise InputError(f"{name}: the mask must be bool [{batch}], not {mask.dtype} {list(mask.shape)}.")
    return Evidence(logits, labels, gradients, mask, errors)
