"""How much each teacher counts for each example: weights [B, K], computed by an optax chain.

The chain's updates are the weights: uniform ones go in (`initial`), and each transform returns new ones. Evidence
comes as keyword arguments of `update`; a transform needs only the parts that its `reads` names:

  teacher_logits: Float [B, K, C].
  labels: Int [B], any negative id meaning "no label"; or Float [B, C] distributions, a row of zeros
    meaning "no label". An id of C or more gives NaN weights, so that it cannot pass unnoticed.
  gradients: Float [B, K, D], of each teacher's distillation loss with respect to the student's output.
  errors: Float [B, K], each teacher's error in a task that is not classification, NaN where there is no label.
    Without it, errors are the cross-entropy of teacher_logits and labels. [ours]
  mask: Bool [B], False on padding. Padding rows get weight 0 and enter no statistics.

A rule replaces the incoming weights; one that weights each row by its label keeps those of unlabelled rows. `smooth`,
`floor` and `anneal` modify the incoming weights, so they come after a rule. Weights are float32, and no gradient flows
through them.
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
    """An optax transform of weights that declares what evidence it reads.

    Attributes:
      reads: names among teacher_logits, labels, gradients and errors.
    """

    reads: frozenset[str]

    def __new__(cls, init: Callable[[Any], Any], update: Callable[..., Any], reads: Iterable[str] = ()) -> "Weighting":
        self = super().__new__(cls, init, update)
        self.reads = frozenset(reads)
        return self


def initial(batch: int, teachers: int) -> Weights:
    """Uniform weights, 1 / teachers each: the input of a chain.

    Raises:
      InputError: there is no example or no teacher.

    Examples:
      >>> initial(1, 4).tolist()
      [[0.25, 0.25, 0.25, 0.25]]
    """
    if batch < 1 or teachers < 1:
        raise InputError(f"Weights need at least one example and one teacher, not {batch} and {teachers}.")
    return jnp.full((batch, teachers), 1 / teachers, jnp.float32)


def chain(*transforms: optax.GradientTransformation) -> Weighting:
    """`optax.chain` as a Weighting, which reads whatever its transforms read.

    Examples:
      >>> from emokd.weighting.modifiers import floor
      >>> from emokd.weighting.rules import only
      >>> weighting, weights = chain(only(0), floor(0.25)), initial(1, 2)
      >>> weighting.update(weights, weighting.init(weights))[0].tolist()
      [[0.75, 0.25]]
    """
    init, update = optax.chain(*transforms)
    return Weighting(init, update, {name for transform in transforms for name in reads_of(transform)})


def reads_of(transform: optax.GradientTransformation) -> frozenset[str]:
    """The evidence that a transform declares; optax's own transforms read none."""
    return getattr(transform, "reads", frozenset())


def stateless(name: str, reads: Sequence[str], rule: Callable[[Weights, Evidence], Weights]) -> Weighting:
    """A transform without state.

    Args:
      name: the transform's, for messages.
      reads: the evidence that it requires.
      rule: (incoming weights, evidence) -> weights; its values on padding rows are ignored.
    """

    def update(updates, state, params=None, **evidence):
        del params
        given = checked(name, reads, updates, evidence)
        return finish(rule(updates, given), given.mask), state

    return Weighting(lambda params: optax.EmptyState(), update, reads)


def by_label(name: str, reads: Sequence[str], rule: Callable[[Evidence], Weights]) -> Weighting:
    """A stateless transform that applies `rule` to labelled rows; the other rows keep their incoming weights.

    Rows whose class id is C or more get NaN.
    """

    def on_labelled(weights, evidence):
        return jnp.where(evidence.impossible, jnp.nan, jnp.where(evidence.scored, rule(evidence), weights))

    return stateless(name, reads, on_labelled)


def finish(weights: Weights, mask: Bool[Array, " B"]) -> Weights:
    """Stops the weights' gradient and sets them to 0 on padding rows."""
    return lax.stop_gradient(jnp.where(mask[:, None], weights, 0.0))
