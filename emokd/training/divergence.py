"""Detects divergence: every step checks that loss, parameters, gradients and statistics are finite.

A finite loss alone proves nothing. A compiled network of NaN can give finite outputs: XLA's maximum on the CPU drops
NaN, so a ReLU turns it into zeros.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emokd.errors import InputError, excerpt
from emokd.phase import Phase, Tree

LOSS = "the loss"
EXPLODED, GROWN = 1e6, 1e3
"""A run stops where the loss of a phase grows beyond the first of these times what it was in its first step, or times
1 where it was smaller; beyond the second the log and the scores say so. Networks that learn nothing any more may have
finite losses: with a learning rate of 1e6 they end at 1e12. [ours]"""


def watched(groups: Mapping[str, str], stats: Tree) -> list[str]:
    """Names of what is checked, in the order of `State.failed`: the loss, each group's parameters, the statistics."""
    return [LOSS, *(f"parameters {group}" for group in groups), *_statistics(stats)]


def _statistics(stats: Tree) -> dict[str, Tree]:
    """The statistics by a name for messages: an entry's parts each by themselves, an entry without parts whole."""
    parts: dict[str, Tree] = {}
    for name, entry in stats.items():
        inside = {f"{name}/{part}": values for part, values in entry.items()} if isinstance(entry, Mapping) else {}
        parts |= {f"statistics {part}": values for part, values in (inside or {name: entry}).items()}
    return dict(sorted(parts.items()))  # sorted, because objectives build their statistics in various orders


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating number of a tree is finite; True where there is none."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.ones((), bool)


def finite(
    loss: Float[Array, ""], learning: Mapping[str, Sequence[Array]], stats: Tree, names: Sequence[str]
) -> Bool[Array, " P"]:
    """What of the checked is finite after a step.

    Args:
      loss: the total loss.
      learning: for each group that learns, its parameters after the step and the squared norm of its gradients.
      stats: after the step.
      names: what is checked, from `watched`.
    """
    fine = {LOSS: jnp.isfinite(loss)}
    fine |= {f"parameters {group}": all_finite(values) for group, values in learning.items()}
    fine |= {name: all_finite(entry) for name, entry in _statistics(stats).items()}
    return jnp.stack([fine.get(name, jnp.ones((), bool)) for name in names])


def first_failures(failed: Int[Array, " P"], step: Int[Array, ""], finite: Bool[Array, " P"]) -> Int[Array, " P"]:
    """`State.failed` after a step: records the step's number for whatever is not finite for the first time.

    Args:
      failed: before the step.
      step: the step's number, from 1.
      finite: what is finite after it, from `finite`.
    """
    return jnp.where((failed == 0) & ~finite, step, failed)


def check(
    failed: Int[np.ndarray, " P"],
    names: Sequence[str],
    metrics: Mapping[str, float],
    phase: Phase,
    step: int,
    workdir: pathlib.Path,
    saved: int | None,
    names_in: Callable[[int], Sequence[str]],
    skipped: Sequence[int] = (),
) -> None:
    """Stops a run that has diverged; to be called before a step is scored, logged or saved.

    Args:
      failed: `State.failed`, on the host.
      names: what is checked, from `watched`.
      metrics: of the present step.
      phase: the present phase.
      step: the steps of the run so far.
      workdir: the run's folder.
      saved: the step of its last checkpoint, if there is one.
      names_in: a step of the phase -> the names of its batch's examples.
      skipped: the steps of the run that were skipped, see `emokd.training.skipping`.

    Raises:
      InputError: something is not finite in this step or an earlier one; it says what, since when, in which batch, and
        what to do.
    """
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value))
    if not failed.any() and not bad:
        return
    first = int(failed[failed > 0].min()) if failed.any() else step
    what = [name for name, at in zip(names, failed, strict=True) if at == first]
    what += [f"{name} (from step {at})" for name, at in zip(names, failed, strict=True) if at > first]
    what += [f"{name} (step {step})" for name in bad]
    before = ""
    if skipped:
        number = f"{len(skipped)} step{'s' if len(skipped) > 1 else ''}"
        before = f" Before it {number} of the run had been skipped as not finite: {excerpt(skipped)}."
    raise InputError(
        f"Step {first} of phase {phase.name!r}: {', '.join(what)} is not finite, so the run has diverged. "
        f"The batch of step {first} was {excerpt(names_in(first))}.{before} {_remedy(phase, metrics, workdir, saved)}"
    )


def growth(
    loss: float,
    first: float,
    metrics: Mapping[str, float],
    phase: Phase,
    step: int,
    workdir: pathlib.Path,
    saved: int | None,
) -> str:
    """Looks how far the loss of a phase has grown.

    Args:
      loss: of the present step.
      first: of the first step.
      metrics: of the present step.
      phase: the present phase.
      step: the steps of the run so far.
      workdir: the run's folder.
      saved: the step of its last checkpoint, if there is one.

    Returns:
      A remark where it has grown more than it should; else an empty text.

    Raises:
      InputError: it has exploded.
    """
    times = abs(loss) / max(abs(first), 1.0)
    grown = f"Step {step} of phase {phase.name!r}: the loss is {loss:.3g}; in the phase's first step it was {first:.3g}"
    if times > EXPLODED:
        raise InputError(f"{grown}, so the run has diverged. {_remedy(phase, metrics, workdir, saved)}")
    return f"{grown}. What the networks learn so is hardly of use: lower the learning rate." if times > GROWN else ""


def _remedy(phase: Phase, metrics: Mapping[str, float], workdir: pathlib.Path, saved: int | None) -> str:
    remark = phase.remark(metrics) if phase.remark else ""
    kept = "There is no checkpoint yet, so the same folder may be used again."
    if saved is not None:
        kept = (
            f"The last checkpoint, of step {saved}, was saved before that. Its folder goes on with the same settings "
            f"alone: for others give another --workdir, or remove {workdir}."
        )
    return (
        f"{remark}{' ' if remark else ''}Lower config.phases.{phase.name}.learning_rate, or "
        f"set config.optimizer.clip_norm where it is 0. {kept}"
    )
