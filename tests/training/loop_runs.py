"""Runs of the room's small recipe through the whole loop, which end where a test wants them to."""

import dataclasses
import json

import jax

from emokd.phase import Recipe
from emokd.reporting.progress import Progress
from emokd.training import loop
from emokd.training.programs import Programs

CLASSES = 3


class Killed(Exception):
    """Stands for the power cut."""


_programs: dict[tuple, Programs] = {}


def programs_of(recipe: Recipe, config) -> Programs:
    """Compiled once for all runs here: they differ in what is watched, stored and chosen."""
    key = recipe.observe is not None, config.ema.decay
    if key not in _programs:
        _programs[key] = Programs(recipe, config, CLASSES)
    return _programs[key]


def run(recipe: Recipe, config, splits, workdir):
    workdir.mkdir(exist_ok=True)
    job = loop.Job(config, recipe, splits, None, programs_of(recipe, config))
    state, scores = loop.train(job, workdir)
    return jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key))), scores


def at_step(monkeypatch, step: int, action):
    """Does something when the run has taken `step` steps, before anything is written about it."""
    taken = 0
    original = Progress.step

    def counted(self, **options):
        nonlocal taken
        taken += 1
        if taken == step:
            action()
        original(self, **options)

    monkeypatch.setattr(Progress, "step", counted)


def kill_at(monkeypatch, step: int):
    """Raises at that step."""

    def kill():
        raise Killed

    at_step(monkeypatch, step, kill)


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]
