"""Rules that set each teacher's weight. A configuration names every public function here.

Each returns a `Weighting`, which declares what evidence it reads. K is the number of teachers, CE_ik the
cross-entropy of teacher k on example i.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from emokd.errors import InputError, nearest
from emokd.weighting.capped_simplex import capped_simplex_minimum
from emokd.weighting.evidence import checked
from emokd.weighting.transform import Weighting, by_label, finish, stateless


def uniform() -> Weighting:
    """1 / K for every teacher, whatever the incoming weights.

    Examples:
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = uniform(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights))
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.5, 0.5]
    """
    return stateless("uniform", (), lambda weights, _: jnp.full_like(weights, 1 / weights.shape[1]))


def only(teacher: int) -> Weighting:
    """1 for the teacher at this index, 0 for the others: distillation from a single teacher.

    Examples:
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = only(1), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights))
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.0, 1.0]
    """
    if not teacher >= 0:
        raise InputError(f"only(teacher={teacher}): teachers are counted from 0.")

    def rule(weights, _):
        if teacher >= weights.shape[1]:
            raise InputError(f"only(teacher={teacher}): there are {weights.shape[1]} teachers, counted from 0.")
        return jnp.zeros_like(weights).at[:, teacher].set(1.0)

    return stateless("only", (), rule)


def relevance(temperature: float = 1.0) -> Weighting:
    """SMKD's default: softmax over teachers of -CE_ik / temperature. At 1 it is p_ik / sum_j p_ij. [ours, smkd.md]

    Examples:
      Two teachers that give the label the probabilities 1/2 and 1/4.

      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = relevance(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), errors=-jnp.log(jnp.array([[0.5, 0.25]])))
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.6667, 0.3333]
    """
    if not temperature > 0:
        raise InputError(f"relevance(temperature={temperature}): the temperature must be positive.")

    def rule(evidence):
        # Relative to the row's best teacher, so that a temperature near 0 makes no row of infinities.
        worse = evidence.errors - evidence.errors.min(-1, keepdims=True)
        return jax.nn.softmax(-worse / temperature)

    return by_label("relevance", ("errors",), rule)


def true_probability() -> Weighting:
    """p_ik = exp(-CE_ik), the probability that the teacher gives to the label; not normalised.

    Examples:
      Two teachers that give the label the probabilities 1/2 and 1/4.

      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = true_probability(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), errors=-jnp.log(jnp.array([[0.5, 0.25]])))
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.5, 0.25]
    """
    return by_label("true_probability", ("errors",), lambda evidence: jnp.exp(-evidence.errors))


def correct_only() -> Weighting:
    """Uniform over the teachers that classify the example correctly; over all of them where none does.

    A teacher is correct where its most probable class is the label, or one of the most voted classes.

    Examples:
      Teacher 0 says class 0, which is right, teacher 1 class 1.

      >>> logits = jnp.array([[[2.0, 0.0], [0.0, 2.0]]])
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = correct_only(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), teacher_logits=logits, labels=jnp.array([0]))
      >>> [round(float(weight), 4) for weight in new[0]]
      [1.0, 0.0]
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

    return by_label("correct_only", ("teacher_logits", "labels"), rule)


def ca_mkd() -> Weighting:
    """CA-MKD (Zhang et al., ICASSP 2022): (1 - softmax over teachers of CE_ik) / (K - 1); a single teacher gets 1.

    Examples:
      Two teachers that give the label the probabilities 1/2 and 1/4.

      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = ca_mkd(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), errors=-jnp.log(jnp.array([[0.5, 0.25]])))
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.6667, 0.3333]
    """

    def rule(evidence):
        teachers = evidence.errors.shape[1]
        if teachers == 1:
            return jnp.ones_like(evidence.errors)
        return (1 - jax.nn.softmax(evidence.errors)) / (teachers - 1)

    return by_label("ca_mkd", ("errors",), rule)


def ebkd() -> Weighting:
    """EBKD (Kwon et al., 2020): 1 - H_ik / sum_j H_ij, H_ik the entropy of teacher k on example i; reads no labels.

    Rows sum to K - 1. Where every entropy is 0, H_ik / sum_j H_ij counts as 1 / K. A single teacher gets weight 1: the
    formula's 0 would let it teach nothing. [ours]

    Examples:
      Teacher 0 is undecided, teacher 1 certain.

      >>> logits = jnp.array([[[0.0, 0.0], [200.0, 0.0]]])
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = ebkd(), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), teacher_logits=logits)
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.0, 1.0]
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

    return stateless("ebkd", ("teacher_logits",), rule)


def most_confident(per: str = "batch", group: int = 0) -> Weighting:
    """MT-PKDOT's choice: 1 for the teacher of least cross-entropy, 0 for the others; ties go to the first.

    Args:
      per: "batch" (the paper's): one teacher for all rows, by the mean over the labelled rows; a batch without labels
        keeps its incoming weights. "sample": one teacher for each row [ours].
      group: with `per="batch"`, choose for each so many neighbouring rows instead; 0, or no fewer than there are: for
        all together. Where the recipe compares rows in groups, it is these if nothing is said here.

    Examples:
      Mean errors 0.4 and 0.35.

      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = most_confident(), initial(2, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), errors=jnp.array([[0.1, 0.5], [0.7, 0.2]]))
      >>> new.tolist()
      [[0.0, 1.0], [0.0, 1.0]]
    """
    _check_per("most_confident", per)
    _check_group("most_confident", group)

    def one_hot(errors):
        return jax.nn.one_hot(errors.argmin(-1), errors.shape[-1], dtype=jnp.float32)

    def batch_rule(weights, evidence):
        def apart(values):
            return _groups(values, group)

        share = evidence.errors / evidence.errors.shape[0]  # so that the sum does not overflow
        total = apart(jnp.where(evidence.scored, share, 0.0)).sum(1, keepdims=True)
        choice = jnp.broadcast_to(one_hot(total), apart(weights).shape)
        chosen = jnp.where(apart(evidence.scored).any(1, keepdims=True), choice, apart(weights))
        chosen = jnp.where(apart(evidence.impossible).any(1, keepdims=True), jnp.nan, chosen)
        return chosen.reshape(weights.shape)

    if per == "batch":
        return stateless("most_confident", ("errors",), batch_rule)
    return by_label("most_confident", ("errors",), lambda evidence: one_hot(evidence.errors))


def aekd(bound: float = 0.6) -> Weighting:
    """AEKD (Du et al., NeurIPS 2020): one weight vector for the batch, which minimises the norm of the mixed gradient.

    min over a of 1/2 |sum_m a_m g_m|^2 with sum a = 1 and 0 <= a_m <= bound, where g_m is the gradient of teacher m's
    losses over all rows of the batch. It is solved exactly inside the step, for at most 8 teachers. Where several
    mixtures have the same norm (equal or vanishing gradients), the one nearest to uniform is taken. [ours]

    Examples:
      Gradients 1 and 3 of one sign: the smaller one, up to the bound.

      >>> gradients = jnp.array([[[1.0], [3.0]]])
      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = aekd(bound=0.75), initial(1, 2)
      >>> new, _ = weighting.update(weights, weighting.init(weights), gradients=gradients)
      >>> [round(float(weight), 4) for weight in new[0]]
      [0.75, 0.25]
    """
    if not bound > 0:
        raise InputError(f"aekd(bound={bound}): the largest weight must be positive.")

    def rule(weights, evidence):
        gradients = jnp.where(evidence.mask[:, None, None], evidence.gradients.astype(jnp.float32), 0.0)
        largest = jnp.abs(gradients).max()
        # XLA divides by multiplying with the reciprocal, which float32 lacks for its largest numbers.
        shrunk = jnp.where(largest > 1e30, 1e-8, 1.0)
        largest = largest * shrunk
        gradients = gradients * shrunk / jnp.where(largest == 0, 1.0, largest)
        # Centred by offsets from the first teacher, so that equal gradients give exactly 0 in both terms.
        offsets = gradients - gradients[:, :1]
        centred = offsets - offsets.mean(1, keepdims=True)
        mean = gradients[:, 0] + offsets.mean(1)
        exact = lax.Precision.HIGHEST
        quadratic = jnp.einsum("bkd,bld->kl", centred, centred, precision=exact)
        linear = jnp.einsum("bkd,bd->k", centred, mean, precision=exact)
        return jnp.broadcast_to(capped_simplex_minimum(quadratic, linear, bound=bound)[None], weights.shape)

    return stateless("aekd", ("gradients",), rule)


class DrawState(NamedTuple):
    """How many batches have been weighted so far; with the seed it determines the next draw."""

    batches: Int[Array, ""]


def random_teacher(per: str = "batch", seed: int = 0, group: int = 0) -> Weighting:
    """1 for a teacher drawn uniformly at random, 0 for the others (Fukuda et al., Interspeech 2017, per batch).

    The draw depends on `seed` and the batch's number alone, so a resumed run draws the same teachers.

    Args:
      per: "batch": one teacher for all rows; "sample": one for each row [ours].
      seed: of the draws; independent of the run's seed.
      group: as in `most_confident`.

    Raises:
      InputError: `per` is neither.

    Examples:
      One of the teachers, for all rows.

      >>> from emokd.weighting.transform import initial
      >>> weighting, weights = random_teacher(), initial(1, 3)
      >>> new, _ = weighting.update(weights, weighting.init(weights))
      >>> float(new.sum())
      1.0
    """
    _check_per("random_teacher", per)
    _check_group("random_teacher", group)

    def update(updates, state, params=None, **evidence):
        del params
        mask = checked("random_teacher", (), updates, evidence).mask
        rows, teachers = updates.shape
        key = jax.random.fold_in(jax.random.key(seed), state.batches)
        together = _groups(updates, group).shape[1] if per == "batch" else 1
        drawn = jax.random.randint(key, (rows // together,), 0, teachers)
        weights = jnp.repeat(jax.nn.one_hot(drawn, teachers, dtype=jnp.float32), together, axis=0)
        return finish(weights, mask), DrawState(optax.safe_increment(state.batches))

    return Weighting(lambda params: DrawState(jnp.zeros((), jnp.int32)), update)


def _check_per(name: str, per: str) -> None:
    if per not in ("batch", "sample"):
        raise InputError(f"{name}(per={per!r}): say 'batch' or 'sample'.{nearest(str(per), ('batch', 'sample'))}")


def _check_group(name: str, group: int) -> None:
    if not group >= 0:
        raise InputError(f"{name}(group={group}): say how many rows choose together, 0 for all of the batch.")


def _groups(values: Array, group: int) -> Array:
    """[B, ...] as [groups, rows of a group, ...]; one group for 0, and where the batch is no larger."""
    rows = values.shape[0]
    size = min(group, rows) or rows
    if rows % size:
        raise InputError(f"Teachers are chosen for groups of {size} rows, which do not divide a batch of {rows}.")
    return values.reshape(rows // size, size, *values.shape[1:])
