"""Runs of one process that differ in seed and data alone share their compiled programs."""

import jax
import numpy as np
import pytest
from small_jobs import paint

from emokd.benchmarking.compilations import count_compilations
from emokd.configuration import config as configuration
from emokd.jobs import job
from emokd.recipes import supervised
from emokd.reporting.metrics_log import read_metrics
from emokd.training import programs
from emokd.weights import model_folder


def make_config(**changes):
    return configuration.locked(paint(supervised.default_config(), steps=3), changes)


def losses(workdir):
    return [row["loss"] for row in read_metrics(workdir) if "loss" in row]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The programs of a run with seed 0."""
    shared = {}
    job.train(make_config(), tmp_path_factory.mktemp("first") / "run", report=False, shared=shared)
    return shared


def test_another_seed_compiles_nothing_and_has_the_same_result_as_alone(first, tmp_path):
    with count_compilations() as compiled:
        job.train(make_config(seed=1), tmp_path / "shared", report=False, shared=first)
    assert compiled == []
    job.train(make_config(seed=1), tmp_path / "alone", report=False)
    assert losses(tmp_path / "shared") == losses(tmp_path / "alone")
    params = [model_folder.load_trained(tmp_path / name / "student").params for name in ("shared", "alone")]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 3}, True),
        ({"log.every_steps": 2, "evaluation.every_steps": 1}, True),
        ({"data.split.seed": 1}, True),
        ({"data.options.train": 25}, True),  # as many whole batches
        ({"data.options.train": 32}, False),
        ({"phases.train.learning_rate": 1e-3}, False),
        ({"optimizer.weight_decay": 0.5}, False),
        ({"data.view_seed": 1}, False),
        ({"data.augment.flip": 0.0}, False),
        ({"student.options.width": 3}, False),
        ({"devices": 1}, False),
        ({"batch_size": 16}, False),
    ],
)
def test_what_changes_the_programs_and_what_does_not(first, changes, same):
    shared = dict(first)
    job.create_job(make_config(**changes), train_teacher=None, shared=shared)
    assert (shared.keys() == first.keys()) is same


def test_programs_used_least_lately_are_forgotten_when_memory_runs_short(monkeypatch):
    monkeypatch.setattr(programs.memory, "release", lambda: None)
    short = iter((True, True, False))
    shared = dict.fromkeys(("oldest", "older", "newer", "newest"))
    programs.make_room(shared, lambda: next(short))
    assert list(shared) == ["newer", "newest"]
    programs.make_room(shared, lambda: True)
    assert not shared


def test_programs_of_a_limited_number_of_recipes_are_kept(monkeypatch):
    monkeypatch.setattr(programs.memory, "release", lambda: None)
    shared = {}
    for run in range(3 * programs.KEPT):
        programs.make_room(shared, lambda: False)
        shared[run] = None
    assert list(shared) == list(range(2 * programs.KEPT, 3 * programs.KEPT))
