"""Leaves out steps in which something is not finite, up to `config.optimizer.skip_diverged` of them in a run. [ours]

Such a step changes nothing but the counts of steps: parameters, statistics, moving average, moments, weightings and
tallies stay as they were, and the next step has the next batch and the schedule's next learning rate.

The record is a part of `State.failed`: below the row of failures that stop the run it has a row for each skipped step,
in order, with the step's number for whatever was not finite, else 0. Without the option the first row is the whole
array, so that checkpoints keep their structure.

`optax.apply_if_finite` does less and costs more. It looks at the gradients alone, so that statistics, the average and
weightings would take over what is not finite; after too many such steps in turn it applies them; and as it must stand
around the partition, it reads the gradients of frozen groups, so that the compiler cannot remove their backward pass.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from emokd.training import divergence


def create(limit: int, watched: int) -> Int[Array, "..."]:
    """`State.failed` before any step: [P], or [1 + L, P] where L steps may be skipped.

    Args:
      limit: how many steps of the run may be skipped, L.
      watched: how many things are checked, P, see `divergence.watched`.
    """
    return jnp.zeros((1 + limit, watched) if limit else watched, jnp.int32)


def count(failed: Int[Array, "R P"], since: Int[Array, ""] | int = 0) -> Int[Array, ""]:
    """How many steps after step `since` were skipped."""
    return (failed[1:].max(1) > since).sum()


def note(
    failed: Int[Array, "R P"], finite: Bool[Array, " P"], step: Int[Array, ""]
) -> tuple[Bool[Array, ""], Int[Array, "R P"]]:
    """Decides whether a step is skipped, and records what was not finite in it.

    Args:
      failed: `State.failed` before the step.
      finite: what is finite after the step, from `divergence.finite`.
      step: the step's number, from 1.

    Returns:
      (whether the step is skipped: something is not finite and the limit is not reached; `State.failed` after it)
    """
    rows, number = failed[1:], count(failed)
    skip = ~finite.all() & (number < rows.shape[0])
    row = jnp.where(skip & ~finite, step, 0)
    here = jnp.arange(rows.shape[0], dtype=number.dtype) == number
    first = divergence.first_failures(failed[0], step, finite | skip)
    return skip, jnp.concatenate([first[None], jnp.where(here[:, None], row[None], rows)])


def choose(skip: Bool[Array, ""], before: Any, after: Any) -> Any:
    """The tree before the step where it is skipped, else the one after it."""
    return jax.tree.map(lambda old, new: old if old is new else jnp.where(skip, old, new), before, after)


def first_failures(failed: Int[np.ndarray, "..."]) -> Int[np.ndarray, " P"]:
    """The first step after which each was not finite, of steps that were not skipped."""
    return failed if failed.ndim == 1 else failed[0]


def described(failed: Int[np.ndarray, "..."], names: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The skipped steps in order, each with the names of what was not finite.

    Args:
      failed: `State.failed`.
      names: what is checked, from `divergence.watched`.
    """
    rows = failed[1:] if failed.ndim == 2 else failed[:0]
    return [(int(row.max()), [name for name, at in zip(names, row, strict=True) if at]) for row in rows if row.any()]
