"""Weightings that modify or combine rules. A configuration names every public function here."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from emokd.errors import InputError
from emokd.labels import has_class
from emokd.weighting.evidence import checked
from emokd.weighting.transform import Weighting, finish, reads_of, stateless


class SplitState(NamedTuple):
    """States of the two weightings of `where_unlabelled`."""

    labelled: optax.OptState
    unlabelled: optax.OptState


def where_unlabelled(labelled: Weighting, unlabelled: Weighting) -> Weighting:
    """Applies the first weighting to rows with a label and the second to rows without. [ours]

    To each of the two, the other's rows are padding.

    Examples:
      >>> from emokd.weighting.rules import only
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = where_unlabelled(only(0), only(1)), initial(2, 2)
      >>> weighting.update(weights, weighting.init(weights), labels=jnp.array([3, -1]))[0].tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    labelled, unlabelled = optax.with_extra_args_support(labelled), optax.with_extra_args_support(unlabelled)

    def update(updates, state, params=None, **evidence):
        given = checked("where_unlabelled", ("labels",), updates, evidence)
        has_label = has_class(given.labels)
        first = {**evidence, "mask": given.mask & has_label}
        second = {**evidence, "mask": given.mask & ~has_label}
        with_label, labelled_state = labelled.update(updates, state.labelled, params, **first)
        without_label, unlabelled_state = unlabelled.update(updates, state.unlabelled, params, **second)
        return jnp.where(has_label[:, None], with_label, without_label), SplitState(labelled_state, unlabelled_state)

    return Weighting(
        lambda params: SplitState(labelled.init(params), unlabelled.init(params)),
        update,
        {"labels", *reads_of(labelled), *reads_of(unlabelled)},
    )


class SmoothState(NamedTuple):
    """The moving average of the weights over batches, [K], and how many batches it averages."""

    average: Float[Array, " K"]
    batches: Int[Array, ""]


def smooth(decay: float) -> Weighting:
    """Mixes each row with the mean weights of earlier batches. [ours]

    m is the exponential moving average of the batch-mean weights, with Adam's correction of the initial bias, and t
    the number of earlier batches. With d = decay (1 - decay^t) / (1 - decay^(t+1)) a row becomes d m + (1 - d) row,
    and the new m is the mean of these rows. So the first batch's weights are unchanged, and rows keep (1 - d) of their
    differences. A batch of padding alone does not change the state.

    Examples:
      The second batch has half of the first one's weights: d = 0.9 (1 - 0.9) / (1 - 0.81) = 0.4737.

      >>> weighting = smooth(0.9)
      >>> first, state = weighting.update(jnp.array([[1.0, 0.0]]), weighting.init(jnp.ones((1, 2))))
      >>> second, _ = weighting.update(jnp.array([[0.0, 1.0]]), state)
      >>> first.tolist(), [round(float(weight), 4) for weight in second[0]]
      ([[1.0, 0.0]], [0.4737, 0.5263])
    """
    if not 0 <= decay < 1:
        raise InputError(f"smooth(decay={decay}): the decay must be at least 0 and below 1.")

    def init(params):
        return SmoothState(jnp.zeros(params.shape[1], jnp.float32), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **evidence):
        del params
        mask = checked("smooth", (), updates, evidence).mask
        power = jnp.power(jnp.float32(decay), state.batches.astype(jnp.float32))
        kept = decay * (1 - power) / (1 - decay * power)
        rows = finish(kept * state.average[None] + (1 - kept) * updates, mask)
        average = rows.sum(0) / jnp.maximum(mask.sum(), 1).astype(jnp.float32)
        new = SmoothState(average, optax.safe_increment(state.batches))
        return rows, jax.tree.map(lambda then, now: jnp.where(mask.any(), now, then), state, new)

    return Weighting(init, update)


def floor(minimum: float) -> Weighting:
    """Gives every teacher at least the share `minimum` of a row's sum s: w becomes minimum s + (1 - K minimum) w.

    Examples:
      >>> weighting, weights = floor(0.25), jnp.array([[1.0, 0.0]])
      >>> weighting.update(weights, weighting.init(weights))[0].tolist()
      [[0.75, 0.25]]
    """
    if not minimum >= 0:
        raise InputError(f"floor(minimum={minimum}): the least share must not be negative.")

    def rule(weights, _):
        teachers = weights.shape[1]
        if minimum * teachers > 1 + 1e-6:
            raise InputError(f"floor(minimum={minimum}): {teachers} teachers cannot each have more than 1/{teachers}.")
        return minimum * weights.sum(1, keepdims=True) + (1 - teachers * minimum) * weights

    return stateless("floor", (), rule)


class AnnealState(NamedTuple):
    """How many batches have been weighted so far."""

    batches: Int[Array, ""]


def anneal(schedule: optax.Schedule | int) -> Weighting:
    """Moves from uniform weights to the incoming ones: (1 - s) / K + s w, s = schedule(batches so far) in [0, 1].

    Args:
      schedule: s as a function of the number of batches so far, or the number of batches in which s rises linearly
        from 0 to 1.

    Examples:
      The first batch has uniform weights, the second half of the incoming ones.

      >>> weighting, weights = anneal(2), jnp.array([[1.0, 0.0]])
      >>> first, state = weighting.update(weights, weighting.init(weights))
      >>> second, _ = weighting.update(weights, state)
      >>> first.tolist(), second.tolist()
      ([[0.5, 0.5]], [[0.75, 0.25]])
    """
    if not callable(schedule):
        if isinstance(schedule, bool) or not isinstance(schedule, int) or schedule < 1:
            raise InputError(f"anneal(schedule={schedule!r}): give a number of batches, 1 or more, or a function.")
        schedule = optax.linear_schedule(0.0, 1.0, schedule)

    def update(updates, state, params=None, **evidence):
        del params
        mask = checked("anneal", (), updates, evidence).mask
        share = jnp.clip(jnp.asarray(schedule(state.batches), jnp.float32), 0.0, 1.0)
        mixed = (1 - share) / updates.shape[1] + share * updates
        return finish(mixed, mask), AnnealState(optax.safe_increment(state.batches))

    return Weighting(lambda params: AnnealState(jnp.zeros((), jnp.int32)), update)
