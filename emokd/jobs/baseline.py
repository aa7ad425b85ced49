"""The student's network on labels alone, beside a run: its job, and what the run's scores say of it."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

from absl import logging

from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.phase import Recipe
from emokd.recipes.common.baseline import PHASE
from emokd.reporting.gain import gain_of_distillation
from emokd.training import loop
from emokd.training.loop import Job
from emokd.training.programs import Programs

FOLDER = "baseline"
"""Its checkpoints and metrics, in the run's folder."""


def is_wanted(recipe: Recipe, asked: bool) -> bool:
    """Whether a run trains the baseline; where it has no teachers, the log says that there is nothing to compare."""
    if asked and not recipe.teachers:
        logging.info("config.baseline: no teacher teaches in this run, so there is nothing to compare it with.")
    return asked and bool(recipe.teachers)


def check_start(recipe: Recipe, done: Collection[str], folder: pathlib.Path) -> None:
    """Checks that the student's steps are known where a run begins with what another one has learnt.

    Args:
      recipe: with all phases of the configuration.
      done: the phases that the other run has done.
      folder: the other run's.

    Raises:
      InputError: the other run has done all of them, so that this one prolongs it.
    """
    names = [phase.name for phase in recipe.phases]
    if not set(names) - set(done):
        raise InputError(
            f"config.baseline.enabled: this run prolongs the one in {folder}, and how many steps the student has taken "
            "in all is not known. Set config.baseline.enabled to False, or train anew."
        )
    if counted := [name for name in names if name in done]:
        logging.info(
            "config.baseline: what %s has done of the phases %s counts as long as this configuration says.",
            *(folder, ", ".join(counted)),
        )


def create_job(job: Job, programs: Programs) -> Job:
    """The baseline's job on the data of a run; cached answers of teachers are not read."""
    return dataclasses.replace(job, recipe=programs.recipe, extra=None, attach=dict, begin=None, programs=programs)


def train(job: Job, workdir: pathlib.Path, scores: dict[str, Any]) -> dict[str, Any]:
    """Trains it, or continues; returns the run's scores with what came of it.

    Args:
      job: made by `create_job`.
      workdir: the run's folder.
      scores: the run's.
    """
    (phase,) = job.recipe.phases
    logging.info("Training the student's network on labels alone, %d steps, in %s.", phase.steps, workdir / FOLDER)
    _, baseline_scores = loop.train(job, workdir / FOLDER)
    stopped = baseline_scores["stopped_early"].get(PHASE)
    result = {
        **scores,
        "baseline": {**baseline_scores["student"], **describe(job.recipe.student_spec)},
        "baseline_training": {name: baseline_scores[name] for name in ("selected_step", "validation", "skipped_steps")}
        | {"steps": stopped["steps"] if stopped else phase.steps},
        "stopped_early": {**scores["stopped_early"], **baseline_scores["stopped_early"]},
    }
    if gain := gain_of_distillation(result):
        logging.info("%s", gain)
        result["remarks"] = [gain, *scores["remarks"]]
    return result
