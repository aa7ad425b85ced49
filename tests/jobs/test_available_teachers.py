"""Teachers that a run has where their files are there: which are taken, what is said, and when a run is refused."""

import json
import pathlib

import jax
import pytest
from absl import logging
from small_jobs import SIZE, paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.jobs import available_teachers, command, job, workdir
from emokd.models.network import NetworkSpec, functional
from emokd.recipes import smkd
from emokd.weights import model_folder

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, and no folder of data."""
    monkeypatch.delenv("EMOKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config():
    config = paint(smkd.default_config(), steps=1)
    config.devices = 1
    for name in ("one", "two", "three"):
        config.teachers[name] = defaults.teacher("basic_cnn", if_there=f"weights/{name}")
    config.teachers.one.size = SIZE
    return config.lock()


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    return lines


def put(folder, *names):
    for name in names:
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        (folder / "weights" / name).touch()


def checkpoints(config):
    return {name: section.checkpoint for name, section in config.teachers.items()}


def test_those_that_are_there_teach_and_the_log_names_all(config, here, monkeypatch, said):
    put(here, "two")
    put(here / "data", "one")
    assert checkpoints(available_teachers.choose(config)) == {"two": "weights/two"}
    monkeypatch.setenv("EMOKD_DATA", str(here / "data"))
    chosen = available_teachers.choose(config)
    assert checkpoints(chosen) == {"one": "weights/one", "two": "weights/two"}
    assert said[1] == "Teachers: one, two. Not there: three (weights/three)."
    assert checkpoints(config) == {"one": "", "two": "", "three": ""}
    assert available_teachers.choose(chosen) is chosen and len(said) == 2


def test_a_checkpoint_that_is_given_is_asked_for_whatever_is_there(config, here):
    put(here, "two")
    given = configuration.locked(config, {"teachers.one.checkpoint": "typing_error", "teachers.three.if_there": "no"})
    assert checkpoints(available_teachers.choose(given)) == {"one": "typing_error", "two": "weights/two"}
    with pytest.raises(InputError, match=r"config\.teachers\.one\.checkpoint: there is no typing_error"):
        job.create_job(given, None)


def test_without_any_the_run_ends_with_exit_code_2_and_leaves_nothing(config, here, capsys):
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        job.train(config, here / "run")
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("train: No teacher is there.") and str(here) in message
    for part in ("one (weights/one)", "two (weights/two)", "docs/weights.md", "config.teachers.three.checkpoint"):
        assert part in message
    assert not (here / "run" / "config.json").exists()


def test_a_run_without_phases_that_ask_a_teacher_needs_none(config, here):
    alone = configuration.locked(config, {f"phases.{name}.enabled": False for name in ("teach", "probe", "distill")})
    assert job.create_job(alone, None).recipe.teachers == []


def test_a_job_has_the_teachers_that_are_there(config, here):
    spec = NetworkSpec("basic_cnn", {"width": 1, "size": SIZE}, {"expression": 8})
    params, stats = jax.device_get(functional(spec).init(jax.random.key(0)))
    model_folder.save_model(here / "weights" / "two", spec, params, stats, {"source": "test"})
    made = job.create_job(config, None)
    assert list(made.recipe.teachers) == ["two"] and set(made.config.teachers) == {"two"}
    assert set(made.recipe.constants) == {"two"}


def test_a_run_goes_on_with_the_teachers_that_it_began_with(config, here, said):
    put(here, "two")
    begun = available_teachers.choose(config)
    workdir.claim(here / "run", begun)
    (here / "run" / "checkpoints" / "1").mkdir(parents=True)
    put(here, "one")
    (here / "weights" / "two").unlink()
    again = available_teachers.choose(config, here / "run")
    assert checkpoints(again) == {"two": "weights/two"}
    assert said[-1] == "Teachers: two. Begun without: one (weights/one), three (weights/three)."
    workdir.check(here / "run", again)
    assert checkpoints(available_teachers.choose(config, here / "another")) == {"one": "weights/one"}
    stored = json.loads((here / "run" / "config.json").read_text())
    del stored["teachers"]["two"]["if_there"]  # as a run of before has it
    (here / "run" / "config.json").write_text(json.dumps(stored))
    workdir.check(here / "run", again)


def test_a_run_of_other_teachers_is_refused_as_such(config, here):
    other = paint(smkd.default_config(), steps=1)
    other.teachers.mine = defaults.teacher(checkpoint="mine")
    workdir.claim(here / "run", other)
    (here / "run" / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a run of another configuration"):
        job.train(config, here / "run")


def test_where_to_get_the_files_of_the_configuration_for_ones_own_pictures():
    page = (ROOT / "docs" / "weights.md").read_text()
    teachers = configuration.load("emokd:smkd/folder").teachers
    assert len(teachers) > 1
    for section in teachers.values():
        assert section.if_there.startswith("weights/") and f"`{section.if_there.removeprefix('weights/')}`" in page
