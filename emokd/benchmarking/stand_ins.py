"""Untrained teachers that replace those that a configuration would train first: a step takes as long with them."""

import pathlib
from collections.abc import Sequence

import jax

from emokd.configuration import config as configuration
from emokd.jobs.job import create_job
from emokd.jobs.models import TrainTeacher
from emokd.weights import model_folder


def untrained_teachers(folder: pathlib.Path) -> TrainTeacher:
    """A trainer of teachers that trains nothing: it stores the teacher's network with fresh weights below `folder`."""

    def make(file: str, name: pathlib.Path, runs: Sequence = ()) -> pathlib.Path:
        del runs
        recipe = create_job(configuration.load(file), make).recipe
        params, stats = jax.device_get(recipe.extract(*jax.jit(recipe.init)(jax.random.key(0))))
        model_folder.save_model(folder / name, recipe.student_spec, params, stats, {"source": f"untrained, {file}"})
        return folder / name

    return make
