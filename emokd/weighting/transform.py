"""How much each teacher counts for each example: a [batch, teachers] matrix, as an optax chain.

Uniform weights go in (`initial`), evidence comes as keyword arguments of `update`, weights come out. The
evidence, each part needed only by the transforms whose `reads` names it:

  teacher_logits: Float [B, K, C].
  labels: Int [B], any negative id meaning "no label"; or Float [B, C] distributions, a row of zeros
    meaning "no label". An id of C or more gives NaN weights, so that it cannot pass unnoticed.
  gradients: Float [B, K, D], of each teacher's distillation loss with respect to the student's output.
  errors: Float [B, K], each teacher's own error in a task that is not classification, NaN where there is no label.
    Where it is not given, it is the cross-entropy of teacher_logits and labels. [ours]
  mask: Bool [B], False on padding. Its rows get weight 0 and count in no statistic.

A transform that reads labels leaves the weights of an unlabelled row as they came in. Otherwise transforms that
read evidence replace what came in; `smooth`, `floor` and `anneal` modify it and go after one of them.
Weights are float32, and no gradient flows through them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError
from emokd.weighting.evidence import Evidence, checked

Weights = Float[Array, "B K"]


class Weighting(optax.GradientTransformationExtraArgs):
    """An optax transform of weights that says what evidence it reads.

    Attributes:
      reads: names among teacher_logits, labels, gradients and errors.
    """

    reads: frozenset[str]

    def __new__(cls, init: Callable[[Any], Any], update: Callable[..., Any], reads: Iterable[str] = ()) -> "Weighting":
        self = super().__new__(cls, init, update)
        self.reads = frozenset(reads)
        return self


def initial(batch: int, teachers: int) -> Weights:
    """Uniform weights, 1 / teachers each: what goes into a chain.

    Raises:
      InputError: there is no example or no teacher.
    """
    if batch < 1 or teachers < 1:
        raise InputError(f"Weights need at least one example and one teacher, not {batch} and {teachers}.")
    return jnp.full((batch, teachers), 1 / teachers, jnp.float32)


def chain(*transforms: optax.GradientTransformation) -> Weighting:
    """`optax.chain`, which reads what any of its transforms reads."""
    init, update = optax.chain(*transforms)
    return Weighting(init, update, {name for transform in transforms for name in reads_of(transform)})


def reads_of(transform: optax.GradientTransformation) -> frozenset[str]:
    """What a transform says that it reads; one of optax's own reads nothing."""
    return getattr(transform, "reads", frozenset())


def stateless(name: str, reads: Sequence[str], rule: Callable[[Weights, Evidence], Weights]) -> Weighting:
    """A transform without state.

    Args:
      name: for messages.
      reads: the evidence that must be there.
      rule: (incoming weights, evidence) -> weights; what it gives to padding does not matter.
    """

    def update(updates, state, params=None, **evidence):
        del params
        given = checked(name, reads, updates, evidence)
        return finish(rule(updates, given), given.mask), state

    return Weighting(lambda params: optax.EmptyState(), update, reads)


def by_label(name: str, reads: Sequence[str], rule: Callable[[Evidence], Weights]) -> Weighting:
    """A transform that weighs each row by its label, and leaves the rows without one."""

    def on_labelled(weights, evidence):
        return jnp.where(evidence.impossible, jnp.nan, jnp.where(evidence.scored, rule(evidence), weights))

    return stateless(name, reads, on_labelled)


def finish(weights: Weights, mask: Bool[Array, " B"]) -> Weights:
    """The weights without gradient, 0 on padding."""
    return lax.stop_gradient(jnp.where(mask[:, None], weights, 0.0))
