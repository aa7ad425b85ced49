"""Runs that begin where another one ended."""

import shutil
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_jobs import SIZE, paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.jobs import began, datasets, job, predecessor
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
    moved = first.rename(first.parent / "moved")  # what it has done is known all the same
    third = create_job(make_config(start_from=str(tmp_path / "second")))
    moved.rename(first)
    assert [phase.name for phase in third.recipe.phases] == ["finetune"]


def last_parameters(workdir):
    """What the run's last checkpoint holds, read by orbax alone."""
    with ocp.CheckpointManager((workdir / "checkpoints").absolute()) as manager:
        step = manager.latest_step()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for shardings
        return reader.restore((workdir / "checkpoints" / str(step) / "state").absolute())["params"]


def test_a_finished_run_is_prolonged_from_its_last_parameters_with_a_schedule_of_its_own(first, tmp_path):
    """Of its last phase, for the new length: the learning rate begins high again and ends at nothing."""
    longer = {"phases.distill.duration_steps": 5, "phases.distill.learning_rate": 0.25}
    config = make_config(start_from=str(first), **WITHOUT_EMOTIONS, **longer)
    work = create_job(config)
    assert [(phase.name, phase.steps) for phase in work.recipe.phases] == [("distill", 5)]
    stored = jax.tree.leaves(last_parameters(first))
    params = jax.tree.leaves(jax.device_get(work.begin[0]))
    assert len(params) == len(stored)
    for ours, theirs in zip(params, stored, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rates = [float(work.recipe.phases[0].learning_rate(step)) for step in range(6)]
    expected = [0.125 * (1 + np.cos(np.pi * step / 5)) for step in range(6)]
    np.testing.assert_allclose(rates, expected, atol=1e-6)
    job.train(config, tmp_path / "longer", report=False)
    assert [row["step"] for row in read_metrics(tmp_path / "longer") if "loss" in row] == [1, 2, 3, 4, 5]
    assert (tmp_path / "longer" / "scores.json").exists()


def test_an_earlier_phase_is_prolonged_where_those_after_it_are_disabled(first):
    settings = {**WITHOUT_EMOTIONS, "phases.distill.enabled": False, "phases.probe.duration_steps": 7}
    work = create_job(make_config(start_from=str(first), **settings))
    assert [(phase.name, phase.steps) for phase in work.recipe.phases] == [("probe", 7)]


def test_a_run_may_not_be_scored_on_what_its_predecessor_has_learnt(first, tmp_path):
    """Another division of the same set; how many there are is counted here by the sources' names."""
    division = {"data.split.use_prescribed": False, "data.split.by_group": True}
    config = make_config(start_from=str(first), **division)
    learned = set(datasets.load_splits(make_config())["train"].keys)
    test = datasets.load_splits(config)["test"].keys
    count = len(learned & set(test))
    assert 0 < count
    with pytest.raises(
        InputError, match=f"learned from {count} of the {len(test)} test examples.*--accept_changed_data"
    ):
        job.train(config, tmp_path / "second", report=False)
    assert not (tmp_path / "second").exists()


def test_a_run_that_began_with_another_predecessor_is_refused(first, tmp_path):
    config = make_config(start_from=str(tmp_path / "first"))
    shutil.copytree(first, tmp_path / "first")
    was = began.describe(config, *datasets.load_data(config))
    assert began.differences(was, began.describe(config, *datasets.load_data(config))) == []
    weights = tmp_path / "first" / "student" / model_folder.WEIGHTS
    weights.write_bytes(weights.read_bytes() + b" ")
    [change] = began.differences(was, began.describe(config, *datasets.load_data(config)))
    assert "config.start_from" in change and "another run" in change


def test_bad_predecessors_are_refused(first, tmp_path):
    with pytest.raises(InputError, match=r"start_from is .*nowhere, which holds no run"):
        create_job(make_config(start_from=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"not those of this run: .*student/backbone.* there, .* here"):
        create_job(make_config(start_from=str(first), **{"student.options.width": 3}))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((first / "config.json").read_text())
    with pytest.raises(InputError, match="not finished; finish it first"):
        create_job(make_config(start_from=str(tmp_path / "begun")))


def test_what_a_diverged_run_has_learnt_is_not_begun_with(first, monkeypatch):
    """Teachers that rest would not be noticed: a compiled network of NaN can answer zeros."""
    read = predecessor.read_weights

    def damaged(*arguments):
        weights = read(*arguments)
        teacher = {
            **weights["params"]["teachers"],
            "one": jax.tree.map(lambda x: x * np.nan, weights["params"]["teachers"]["one"]),
        }
        return {**weights, "params": {**weights["params"], "teachers": teacher}}

    monkeypatch.setattr(predecessor, "read_weights", damaged)
    with pytest.raises(
        InputError, match=r"start_from: what the run in .* is not finite .*params/teachers/one/.*diverged"
    ):
        create_job(make_config(start_from=str(first)))
