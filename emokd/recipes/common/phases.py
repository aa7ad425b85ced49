"""Phases from their sections of `config.phases`."""

import functools
from collections.abc import Callable, Iterable, Mapping

import ml_collections
from absl import logging

from emokd.configuration.durations import UNITS, duration
from emokd.configuration.schedules import learning_rate_schedule
from emokd.errors import InputError
from emokd.losses.affect import CORRELATIONS
from emokd.losses.shapes import check_range
from emokd.phase import Objective, Phase, Prepare
from emokd.recipes.common.task import Task


def takes_part(section: ml_collections.ConfigDict) -> bool:
    """Whether a section of `config.phases` is a phase of the run: it is enabled, and its duration is not 0."""
    return section.enabled and not any(section.get(f"duration_{unit}") == 0 for unit in UNITS)


def create_phase(
    name: str,
    config: ml_collections.ConfigDict,
    task: Task,
    objective: Objective,
    learns: Mapping[str, float],
    *,
    data: str = "labelled",
    scored: bool = False,
    prepare: Prepare | None = None,
    remark: Callable[[Mapping[str, float]], str] | None = None,
    relational: Iterable[str] = (),
    selects_anew: bool = False,
) -> Phase | None:
    """A phase from its section of `config.phases`, or None where it is left out.

    A group whose multiplier is 0 is frozen: it is not differentiated at all. Rounding never makes a warm-up as long as
    its phase: a phase of 1 step has none.

    Args:
      name: of the phase, and of its section.
      config: the run's configuration.
      task: the training split's size.
      objective: what is minimised.
      learns: the multiplier of each group's learning rate.
      data: the stream that it reads, "labelled" or "all".
      scored: whether the student can be scored on the emotion task during the phase.
      prepare: run once when the phase begins.
      remark: turns its metrics into a warning, see `Phase`.
      relational: what compares the examples of a batch, in words, see `Phase`; empty texts are left out.
      selects_anew: whether the steps of earlier phases no longer compete for "best", see `Phase`.

    Raises:
      InputError: a duration or the learning rate is invalid, or the warm-up is as long as the phase.
    """
    section = config.phases[name]
    learns = {group: multiplier for group, multiplier in learns.items() if multiplier}
    if not takes_part(section) or not learns:
        return None
    key = f"config.phases.{name}."
    length = functools.partial(
        duration, section, steps_per_epoch=task.steps_per_epoch(data), batch_size=task.batch_size, section=key
    )
    steps = length("duration")
    warmup = length("warmup", total_steps=steps, below=steps)
    if warmup >= steps:
        raise InputError(
            f"{key}warmup_*: a warm-up of {warmup} steps leaves nothing of a phase of {steps}; shorten the warm-up, or "
            "set it to 0."
        )
    if steps == 1 and not section.get("duration_steps"):
        logging.info("Phase %s is 1 step: its duration is no more than that of a batch of %d.", name, task.batch_size)
    check_range(f"{key}learning_rate", section.learning_rate, 0)
    return Phase(
        name=name,
        objective=objective,
        learns=learns,
        steps=steps,
        learning_rate=learning_rate_schedule(section.learning_rate, steps, warmup, section.schedule),
        data=data,
        scored=scored,
        prepare=prepare,
        remark=remark,
        relational=", ".join(filter(None, relational)),
        selects_anew=selects_anew,
    )


def correlations(affect_loss: str, targets: Iterable[str]) -> str:
    """What compares the examples of a batch in the losses of these targets, for `Phase.relational`."""
    return f"config.affect_loss={affect_loss}" if affect_loss in CORRELATIONS and "valence_arousal" in targets else ""
