"""Gradient accumulation: one optimiser step whose batch is computed in microbatches, one after the other.

The gradient is the whole batch's. A first pass over all microbatches collects the rows that count (labels, masks) and
the weighting's evidence, so every loss is divided by the rows of the whole batch, and the weighting runs once. The
exception is whatever compares the examples of a batch: a phase with such a loss is refused (`Phase.relational`), and
BatchNorm normalises with each microbatch's own statistics.

The microbatches are unrolled. In `lax.scan` XLA's CPU backend runs the gradients of convolutions many times slower, and
on every backend a frozen teacher would run twice, once for its evidence and once for its losses; unrolled, the compiler
merges the two. The price is compilation time, which grows with the number of microbatches.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from emokd.errors import InputError
from emokd.phase import Batch, Outcome, Recipe, Tree

RowLosses = tuple[dict[str, Array], Array | None, dict[str, Array]]
"""Losses of each row: of the terms, of the teachers and of the teacher terms; their cotangents have the same tree."""
Losses = Callable[[list[Array], Batch, Array], tuple[RowLosses, Outcome]]
"""(parameters that learn, batch, key) -> (losses, outcome)."""
Judged = tuple[RowLosses, Array | None, Tree]
"""(cotangents of the losses, teacher weights [B, K] or None, new weighting state)."""


def check_accumulation(recipe: Recipe, config: ml_collections.ConfigDict) -> None:
    """Raises InputError where `config.accumulate` does not divide the batch, or would change what a phase computes."""
    count, size = config.accumulate, config.batch_size
    if count < 1 or size % count:
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        raise InputError(
            f"config.accumulate is {count}, which does not divide config.batch_size ({size}); take one of {divisors}."
        )
    for phase in recipe.phases:
        if count > 1 and phase.relational:
            raise InputError(
                f"config.accumulate is {count}, but phase {phase.name!r} compares the examples of a batch "
                f"({phase.relational}): in microbatches it would be another method. Set config.accumulate=1, and for "
                "memory config.remat=True, config.precision=bfloat16 or more devices."
            )


def split(tree: Any, count: int) -> list[Any]:
    """Splits every array's rows into microbatches: microbatch i has the rows i, i + count, i + 2 count, ...

    A batch is sharded in blocks of rows, so every device has equally many rows of every microbatch.
    """
    by_microbatch = jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]), tree)
    return [jax.tree.map(lambda x: x[:, i], by_microbatch) for i in range(count)]  # noqa: B023


def join(outcomes: Sequence[Outcome], stats: Tree) -> Outcome:
    """Undoes `split` for outcomes. New statistics = `stats` + mean over microbatches of (its statistics - `stats`)."""
    rows = [dataclasses.replace(outcome, stats={}) for outcome in outcomes]
    joined = jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]), *rows)
    # Written as a difference, so that frozen statistics stay the same bit for bit.
    new_stats = jax.tree.map(
        lambda old, *new: old + sum(x - old for x in new) / len(new), stats, *[outcome.stats for outcome in outcomes]
    )
    return dataclasses.replace(joined, stats=new_stats)


def accumulate(
    losses: Losses,
    judge: Callable[[Outcome], Judged],
    learning: list[Array],
    stats: Tree,
    batch: Batch,
    key: Array,
    count: int,
) -> tuple[list[Array], Outcome, Array | None, Tree]:
    """Gradients of the whole batch's loss in `count` backward passes, each over one microbatch.

    Args:
      losses: (learning, batch, key) -> (losses of each row, outcome).
      judge: outcome -> (cotangents of the losses, teacher weights, weighting state).
      learning: the parameters to differentiate by.
      stats: statistics before the step.
      batch: the whole batch.
      key: the step's; microbatch i uses fold_in(key, i).
      count: number of microbatches.

    Returns:
      (gradients like `learning`, outcome of the batch, teacher weights [B, K] or None, new weighting state)
    """
    parts = split(batch, count)
    keys = [jax.random.fold_in(key, i) for i in range(count)]
    # The compiler keeps only the part of this pass that decides the cotangents: the rows that count, and the evidence.
    whole = join([losses(learning, part, k)[1] for part, k in zip(parts, keys, strict=True)], stats)
    cotangents, weights, weighting = judge(jax.lax.stop_gradient(whole))
    total: list[Array] = []
    outcomes = []
    for part, k, cotangent in zip(parts, keys, split(cotangents, count), strict=True):
        # The barrier runs microbatches one after the other; else the activations of several are in memory at once.
        learning, total = jax.lax.optimization_barrier((learning, total))
        _, backward, outcome = jax.vjp(lambda values: losses(values, part, k), learning, has_aux=True)  # noqa: B023
        (gradients,) = backward(cotangent)
        total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        outcomes.append(jax.lax.stop_gradient(outcome))
    return total, join(outcomes, stats), weights, weighting
