"""Runs that begin where another one ended."""

import jax
import numpy as np
import pytest
from small_jobs import SIZE, paint

from emokd import config as configuration
from emokd import defaults, job, predecessor
from emokd.errors import InputError
from emokd.recipes import smkd
from emokd.reporting.metrics_log import read_metrics
from emokd.weights import model_folder


def make_config(**changes):
    config = paint(smkd.default_config(), steps=2)
    config.teachers.one = defaults.teacher("basic_cnn", task="identity", width=2, size=SIZE)
    return configuration.locked(config, changes)


WITHOUT_EMOTIONS = {"phases.classify.enabled": False, "phases.finetune.enabled": False}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run that stops after imitation: teach, probe, distill."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    job.train(make_config(**WITHOUT_EMOTIONS), workdir, report=False)
    return workdir


def create_job(config):
    return job.create_job(config, train_teacher=None)


def test_the_second_run_begins_with_the_first_ones_student_and_does_the_rest(first, tmp_path):
    config = make_config(start_from=str(first), seed=3)
    work = create_job(config)
    assert [phase.name for phase in work.recipe.phases] == ["classify", "finetune"]
    stored = model_folder.load_trained(first / "student")  # an independent way to the same values
    params, stats = jax.device_get(work.begin)
    jax.tree.map(np.testing.assert_array_equal, params["student"]["backbone"], stored.params["backbone"])
    jax.tree.map(np.testing.assert_array_equal, stats["student"]["backbone"], stored.stats["backbone"])
    job.train(config, tmp_path / "second", report=False)
    rows = read_metrics(tmp_path / "second")
    assert {row["phase"] for row in rows} == {"classify", "finetune"}


@pytest.mark.slow
def test_a_run_at_learning_rate_zero_ends_with_what_it_began_with(first, tmp_path):
    still = {f"phases.{phase}.learning_rate": 0.0 for phase in ("classify", "finetune")}
    job.train(make_config(start_from=str(first), seed=3, **still), tmp_path / "second", report=False)
    params = [model_folder.load_trained(folder / "student").params for folder in (first, tmp_path / "second")]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.slow
def test_a_run_begins_with_one_whose_parameters_were_split(tmp_path):
    split = {"mesh.fsdp": 2, "sharding.min_size": 1, "sharding.state": ((".*", "fsdp"),)}
    job.train(make_config(**WITHOUT_EMOTIONS, **split), tmp_path / "first", report=False)
    stored = model_folder.load_trained(tmp_path / "first" / "student").params["backbone"]
    for settings in ({}, split):
        params, _ = create_job(make_config(start_from=str(tmp_path / "first"), **settings)).begin
        found = params["student"]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), stored)
        whole = {leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found)}
        assert (False in whole) is (settings is split)


@pytest.mark.slow
def test_a_chain_of_runs_has_done_the_phases_of_all(first, tmp_path):
    job.train(
        make_config(start_from=str(first), **{"phases.finetune.enabled": False}), tmp_path / "second", report=False
    )
    assert predecessor.phases_done(tmp_path / "second") == {"teach", "probe", "distill", "classify"}
    third = create_job(make_config(start_from=str(tmp_path / "second")))
    assert [phase.name for phase in third.recipe.phases] == ["finetune"]


def test_bad_predecessors_are_refused(first, tmp_path):
    with pytest.raises(InputError, match=r"start_from is .*nowhere, which holds no run"):
        create_job(make_config(start_from=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"has done every phase of this one .*--config.phases.distill.enabled=False"):
        create_job(make_config(start_from=str(first), **WITHOUT_EMOTIONS))
    with pytest.raises(InputError, match=r"not those of this run: .*student/backbone.* there, .* here"):
        create_job(make_config(start_from=str(first), **{"student.options.width": 3}))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((first / "config.json").read_text())
    with pytest.raises(InputError, match="not finished; finish it first"):
        create_job(make_config(start_from=str(tmp_path / "begun")))
