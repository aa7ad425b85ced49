"""How much each teacher counts for each example: a [batch, teachers] matrix, as an optax chain.

Uniform weights go in (`initial`), evidence comes as keyword arguments of `update`, weights come out. The
evidence, each part needed only by the transforms that say so:

  teacher_logits: Float [B, K, C].
  labels: Int [B], any negative id meaning "no label"; or Float [B, C] distributions, a row of zeros
    meaning "no label". An id of C or more gives NaN weights, so that it cannot pass unnoticed.
  gradients: Float [B, K, D], of each teacher's distillation loss with respect to the student's output.
  errors: Float [B, K], each teacher's own error in a task that is not classification, NaN where there is no label.
    Where given, it takes the place of the cross-entropy that teacher_logits and labels would give. [ours]
  mask: Bool [B], False on padding. Its rows get weight 0 and count in no statistic.

A transform that reads labels leaves the weights of an unlabelled row as they came in. Otherwise transforms that
read evidence replace what came in; `smooth`, `floor` and `anneal` modify it and go after one of them.
Weights are float32, and no gradient flows through them.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from emokd.errors import InputError, nearest
from emokd.labels import has_class
from emokd.weighting.capped_simplex import capped_simplex_minimum
from emokd.weighting.evidence import Evidence, checked

Weighting: TypeAlias = optax.GradientTransformationExtraArgs
Weights = Float[Array, "B K"]


def initial(batch: int, teachers: int) -> Weights:
    """Uniform weights, 1 / teachers each: what goes into a chain and into its `init`."""
    if batch < 1 or teachers < 1:
        raise InputError(f"Weights need at least one example and one teacher, not {batch} and {teachers}.")
    return jnp.full((batch, teachers), 1 / teachers, jnp.float32)


def uniform() -> Weighting:
    """1 / K for every teacher, whatever came in."""
    return _rule("uniform", (), lambda weights, _: jnp.full_like(weights, 1 / weights.shape[1]))


def only(teacher: int) -> Weighting:
    """1 for the teacher at this index, 0 for the others: distillation from one of them."""
    if not teacher >= 0:
        raise InputError(f"only(teacher={teacher}): teachers are counted from 0.")

    def rule(weights, _):
        if teacher >= weights.shape[1]:
            raise InputError(f"only(teacher={teacher}): there are {weights.shape[1]} teachers, counted from 0.")
        return jnp.zeros_like(weights).at[:, teacher].set(1.0)

    return _rule("only", (), rule)


def relevance(temperature: float = 1.0) -> Weighting:
    """SMKD's default: softmax over teachers of -CE_ik / temperature. At 1 it is p_ik / sum_j p_ij. [ours, smkd.md]"""
    if not temperature > 0:
        raise InputError(f"relevance(temperature={temperature}): the temperature must be positive.")
    return _labelled_rule("relevance", lambda evidence: jax.nn.softmax(-evidence.errors / temperature))


def true_probability() -> Weighting:
    """p_ik = exp(-CE_ik), the probability that the teacher gives to the label; not normalised."""
    return _labelled_rule("true_probability", lambda evidence: jnp.exp(-evidence.errors))


def correct_only() -> Weighting:
    """Uniform over the teachers that are right; over all of them where none is.

    A teacher is right where the class that it ranks first is the label, or one of the most voted classes.
    """

    def rule(evidence):
        logits, labels = evidence.teacher_logits, evidence.labels
        guess = logits.argmax(-1)
        if labels.ndim == 1:
            right = guess == labels[:, None].astype(guess.dtype)
        else:
            right = jnp.take_along_axis(labels, guess, axis=1) == labels.max(-1, keepdims=True)
        right = right.astype(jnp.float32)
        count = right.sum(-1, keepdims=True)
        return jnp.where(count == 0, 1 / logits.shape[1], right / jnp.where(count == 0, 1.0, count))

    return _labelled_rule("correct_only", rule)


def ca_mkd() -> Weighting:
    """CA-MKD (Zhang et al., ICASSP 2022): (1 - softmax over teachers of CE_ik) / (K - 1); a single teacher gets 1."""

    def rule(evidence):
        teachers = evidence.teacher_logits.shape[1]
        if teachers == 1:
            return jnp.ones_like(evidence.errors)
        return (1 - jax.nn.softmax(evidence.errors)) / (teachers - 1)

    return _labelled_rule("ca_mkd", rule)


def ebkd() -> Weighting:
    """EBKD (Kwon et al., 2020): 1 - H_ik / sum_j H_ij, H a teacher's entropy; label-free, rows sum to K - 1.

    Where every entropy is 0 the shares count as equal. A single teacher gets 1, not the formula's 0, with
    which it would teach nothing. [ours]
    """

    def rule(weights, evidence):
        teachers = weights.shape[1]
        if teachers == 1:
            return jnp.ones_like(weights)
        log_p = jax.nn.log_softmax(evidence.teacher_logits.astype(jnp.float32))
        p = jnp.exp(log_p)
        entropy = -jnp.where(p == 0, 0.0, p * log_p).sum(-1)
        total = entropy.sum(-1, keepdims=True)
        return 1 - jnp.where(total == 0, 1 / teachers, entropy / jnp.where(total == 0, 1.0, total))

    return _rule("ebkd", ("teacher_logits",), rule)


def most_confident(per: str = "batch") -> Weighting:
    """MT-PKDOT's choice: 1 for the teacher of least cross-entropy, 0 for the others; ties go to the first.

    Args:
      per: "batch" (the paper's): one teacher for all rows, by the mean over the rows that have a label;
        where none has, the weights stay as they came in. "sample": one teacher for each row. [ours]
    """
    if per not in ("batch", "sample"):
        raise InputError(
            f"most_confident(per={per!r}): say 'batch' or 'sample'.{nearest(str(per), ('batch', 'sample'))}"
        )

    def one_hot(errors):
        return jax.nn.one_hot(errors.argmin(-1), errors.shape[-1], dtype=jnp.float32)

    def batch_rule(weights, evidence):
        total = jnp.where(evidence.scored, evidence.errors, 0.0).sum(0, keepdims=True)
        chosen = jnp.where(evidence.scored.any(), jnp.broadcast_to(one_hot(total), weights.shape), weights)
        return jnp.where(evidence.impossible.any(), jnp.nan, chosen)

    if per == "batch":
        return _rule("most_confident", ("teacher_logits", "labels"), batch_rule)
    return _labelled_rule("most_confident", lambda evidence: one_hot(evidence.errors))


def aekd(bound: float = 0.6) -> Weighting:
    """AEKD (Du et al., NeurIPS 2020): one weight vector for the batch, the least-norm mixture of gradients.

    min over a of 1/2 |sum_m a_m g_m|^2 with sum a = 1 and 0 <= a_m <= bound, g_m teacher m's gradients over
    all rows of the batch. Solved exactly inside the step, for at most 8 teachers. Where several mixtures
    are equally short (equal or vanishing gradients) the one nearest to uniform is taken. [ours]
    """
    if not bound > 0:
        raise InputError(f"aekd(bound={bound}): the largest weight must be positive.")

    def rule(weights, evidence):
        gradients = jnp.where(evidence.mask[:, None, None], evidence.gradients.astype(jnp.float32), 0.0)
        largest = jnp.abs(gradients).max()
        gradients = gradients / jnp.where(largest == 0, 1.0, largest)
        # Centred by way of the first teacher, so that equal gradients leave exactly nothing to choose between.
        offsets = gradients - gradients[:, :1]
        centred = offsets - offsets.mean(1, keepdims=True)
        mean = gradients[:, 0] + offsets.mean(1)
        exact = lax.Precision.HIGHEST
        quadratic = jnp.einsum("bkd,bld->kl", centred, centred, precision=exact)
        linear = jnp.einsum("bkd,bd->k", centred, mean, precision=exact)
        return jnp.broadcast_to(capped_simplex_minimum(quadratic, linear, bound=bound)[None], weights.shape)

    return _rule("aekd", ("gradients",), rule)


class SplitState(NamedTuple):
    """States of the two weightings of `where_unlabelled`."""

    labelled: optax.OptState
    unlabelled: optax.OptState


def where_unlabelled(labelled: Weighting, unlabelled: Weighting) -> Weighting:
    """The first weighting on rows with a label, the second on rows without; neither sees the other's rows."""
    labelled, unlabelled = optax.with_extra_args_support(labelled), optax.with_extra_args_support(unlabelled)

    def update(updates, state, params=None, **evidence):
        given = checked("where_unlabelled", ("labels",), updates, evidence)
        has_label = has_class(given.labels)
        first = {**evidence, "mask": given.mask & has_label}
        second = {**evidence, "mask": given.mask & ~has_label}
        ours, labelled_state = labelled.update(updates, state.labelled, params, **first)
        theirs, unlabelled_state = unlabelled.update(updates, state.unlabelled, params, **second)
        return jnp.where(has_label[:, None], ours, theirs), SplitState(labelled_state, unlabelled_state)

    return Weighting(lambda params: SplitState(labelled.init(params), unlabelled.init(params)), update)


class SmoothState(NamedTuple):
    """The running mean of the weights over batches, [K], and how many batches it holds."""

    average: Float[Array, " K"]
    batches: Int[Array, ""]


def smooth(decay: float) -> Weighting:
    """Mixes each row with the mean weights of earlier batches.

    With m the exponential moving average of the batch-mean weights (corrected for its start, as Adam's is)
    and t the batches before this one, d = decay (1 - decay^t) / (1 - decay^(t+1)): a row becomes
    d m + (1 - d) row, and the new m is the mean of these rows. So the first batch passes unchanged, and
    rows keep (1 - d) of their differences. A batch of padding alone changes nothing.
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
        rows = _finish(kept * state.average[None] + (1 - kept) * updates, mask)
        average = rows.sum(0) / jnp.maximum(mask.sum(), 1).astype(jnp.float32)
        new = SmoothState(average, optax.safe_increment(state.batches))
        return rows, jax.tree.map(lambda then, now: jnp.where(mask.any(), now, then), state, new)

    return Weighting(init, update)


def floor(minimum: float) -> Weighting:
    """Gives every teacher at least `minimum` of its row's total s: w becomes minimum s + (1 - K minimum) w."""
    if not minimum >= 0:
        raise InputError(f"floor(minimum={minimum}): the least share must not be negative.")

    def rule(weights, _):
        teachers = weights.shape[1]
        if minimum * teachers > 1 + 1e-6:
            raise InputError(f"floor(minimum={minimum}): {teachers} teachers cannot each have more than 1/{teachers}.")
        return minimum * weights.sum(1, keepdims=True) + (1 - teachers * minimum) * weights

    return _rule("floor", (), rule)


class AnnealState(NamedTuple):
    """How many batches were weighed."""

    batches: Int[Array, ""]


def anneal(schedule: optax.Schedule | int) -> Weighting:
    """Passes from uniform weights to the incoming ones: (1 - s) / K + s w, s = schedule(batches so far) in [0, 1].

    Args:
      schedule: a function of the count, or the number of batches of a linear rise from 0 to 1.
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
        return _finish(mixed, mask), AnnealState(optax.safe_increment(state.batches))

    return Weighting(lambda params: AnnealState(jnp.zeros((), jnp.int32)), update)


WEIGHTINGS: Mapping[str, Callable[..., Weighting]] = {
    transform.__name__: transform
    for transform in (
        uniform,
        only,
        relevance,
        true_probability,
        correct_only,
        ca_mkd,
        ebkd,
        most_confident,
        aekd,
        where_unlabelled,
        smooth,
        floor,
        anneal,
    )
}


def create(spec: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str], **options) -> Weighting:
    """Builds a weighting from configuration.

    Args:
      spec: a name with its options as keyword arguments; a mapping with the key `name` and the options
        beside it; or a list of either, chained in order. `where_unlabelled` takes such a spec for each
        of its two options.
      **options: the options of a weighting given by name.

    Raises:
      InputError: an unknown name (the message gives the nearest), or options that do not fit.
    """
    if isinstance(spec, str):
        return optax.chain(_create_one(spec, options))
    if options:
        raise InputError(f"Options {sorted(options)} are given beside a whole weighting; put them into it.")
    parts = [spec] if hasattr(spec, "items") else list(spec)
    if not parts:
        raise InputError("The weighting is an empty list; say [{'name': 'uniform'}] for equal weights.")
    transforms = []
    for part in parts:
        if not isinstance(part, str) and not hasattr(part, "items"):
            raise InputError(f"A weighting is a name or a mapping with the key 'name', not {part!r}.")
        settings = {"name": part} if isinstance(part, str) else dict(part.items())
        if "name" not in settings:
            raise InputError(f"The weighting {settings} has no 'name'. Known: {', '.join(sorted(WEIGHTINGS))}.")
        transforms.append(_create_one(settings.pop("name"), settings))
    return optax.chain(*transforms)


def needs_gradients(spec: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str]) -> bool:
    """Whether the weighting that `create` makes of this configuration reads `gradients`, which cost a backward pass."""
    return "aekd" in _names(spec)


def needs_logits(spec: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str]) -> bool:
    """Whether the weighting that `create` makes of this configuration asks what the teachers predict."""
    return bool(_names(spec) - {"uniform", "only", "aekd", "where_unlabelled", "smooth", "floor", "anneal"})


def _names(spec: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str]) -> set[str]:
    """The names of all weightings in a configuration."""
    if isinstance(spec, str):
        return {spec}
    if hasattr(spec, "items"):
        parts = [value for key, value in spec.items() if key in ("name", "labelled", "unlabelled")]
        return set().union(*map(_names, parts))
    return set().union(*map(_names, spec))


def _create_one(name: str, options: Mapping[str, Any]) -> Weighting:
    if name not in WEIGHTINGS:
        known = ", ".join(sorted(WEIGHTINGS))
        raise InputError(f"There is no weighting {name!r}.{nearest(str(name), WEIGHTINGS)} Known: {known}.")
    taken = inspect.signature(WEIGHTINGS[name]).parameters
    for option in options:
        if option not in taken:
            known = ", ".join(taken) or "none"
            raise InputError(f"Weighting {name!r} has no option {option!r}.{nearest(option, taken)} It takes: {known}.")
    missing = [key for key, parameter in taken.items() if parameter.default is parameter.empty and key not in options]
    if missing:
        raise InputError(f"Weighting {name!r} needs the option {missing[0]!r}.")
    if name == "where_unlabelled":
        options = {key: create(value) for key, value in options.items()}
    try:
        return WEIGHTINGS[name](**options)
    except TypeError as error:
        raise InputError(f"Weighting {name!r} cannot be made with the options {dict(options)}: {error}") from error


def _rule(name: str, needs: tuple[str, ...], rule: Callable[[Weights, Evidence], Weights]) -> Weighting:
    """A transform without state."""

    def update(updates, state, params=None, **evidence):
        del params
        given = checked(name, needs, updates, evidence)
        return _finish(rule(updates, given), given.mask), state

    return Weighting(lambda params: optax.EmptyState(), update)


def _labelled_rule(name: str, rule: Callable[[Evidence], Weights]) -> Weighting:
    """A transform that weighs each row by its label, and leaves the rows without one."""

    def on_labelled(weights, evidence):
        return jnp.where(evidence.impossible, jnp.nan, jnp.where(evidence.scored, rule(evidence), weights))

    return _rule(name, ("teacher_logits", "labels"), on_labelled)


def _finish(weights: Weights, mask: Bool[Array, " B"]) -> Weights:
    return lax.stop_gradient(jnp.where(mask[:, None], weights, 0.0))
