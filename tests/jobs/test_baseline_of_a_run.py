"""The same network on labels alone, beside a run: its scores are those of a run without teachers."""

import json
import shutil

import jax
import pytest
from small_jobs import SIZE, paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.jobs import baseline, job
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import bounded
from emokd.reporting.scoreboard import scoreboard
from emokd.weights import model_folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """One teacher of expressions, valence and arousal; the student is scored after each step, and the best is kept."""
    folder = tmp_path_factory.mktemp("teacher")
    config = paint(bounded.default_config(), steps=3)
    classes = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    spec = NetworkSpec(
        "basic_cnn",
        {"width": 1, "size": SIZE},
        {"expression": 8, "valence_arousal": 2},
        {"expression": classes},
        Preprocessing(SIZE),
    )
    model_folder.save_model(folder, spec, *functional(spec).init(jax.random.key(1)), {"source": "test"})
    config.teachers.one = defaults.teacher(checkpoint=str(folder))
    config.evaluation = defaults.every(steps=1)
    config.student = defaults.network("basic_cnn", size=SIZE, width=1)
    config.baseline.enabled = True
    config.devices = 1
    return config.lock()


@pytest.fixture(scope="module")
def shared():
    """Compiled once for all runs here."""
    return {}


@pytest.fixture(scope="module")
def finished(config, shared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    return workdir, job.train(config, workdir, shared=shared)


def test_its_scores_are_those_of_the_recipe_without_teachers(config, finished, tmp_path):
    _, scores = finished
    alone = configuration.locked(config, {"baseline.enabled": False})
    with alone.unlocked():
        alone.teachers = {}
    expected = job.train(alone, tmp_path / "alone", report=False)
    assert scores["baseline"] == expected["student"]
    assert scores["baseline_training"]["steps"] == 3
    assert scores["baseline_training"]["selected_step"] == expected["selected_step"]
    assert scores["baseline"] != scores["student"]
    assert not (tmp_path / "alone" / "baseline").exists()


def test_scores_scoreboard_and_report_say_what_distillation_gave(finished):
    workdir, scores = finished
    gain = scores["student"]["expression"]["accuracy"] - scores["baseline"]["expression"]["accuracy"]
    sentence = scores["remarks"][0]
    assert sentence.startswith("Distillation gave ") and f"{gain:+.4f} accuracy" in sentence
    assert "over the same network on labels alone, trained for 3 steps; one run" in sentence
    assert sentence in scoreboard(scores) and "| labels alone" in scoreboard(scores)
    page = (workdir / "report.html").read_text()
    assert "over the same network on labels alone" in page and '<th scope="row">labels alone</th>' in page


def test_it_continues_where_it_stood(config, shared, finished, tmp_path):
    """From its last checkpoint, and from one in the middle; either way to the same scores."""
    workdir, scores = finished
    for name, kept in (("end", 3), ("middle", 2)):
        shutil.copytree(workdir, tmp_path / name)
        (tmp_path / name / "scores.json").unlink()
        for path in (tmp_path / name / "baseline" / "checkpoints").iterdir():
            if path.name.isdecimal() and int(path.name) > kept:
                shutil.rmtree(path)
        again = job.train(config, tmp_path / name, report=False, shared=shared)
        assert (again["baseline"], again["student"]) == (scores["baseline"], scores["student"])
    assert json.loads((tmp_path / "middle" / "scores.json").read_text()) == again


def test_a_run_without_teachers_has_none(config):
    alone = configuration.locked(config, {})
    with alone.unlocked():
        alone.teachers = {}
    assert job.create_job(alone, None).baseline is None


def test_a_run_that_prolongs_another_is_refused(config, finished, tmp_path):
    workdir, _ = finished
    longer = configuration.locked(config, {"start_from": str(workdir)})
    with pytest.raises(InputError, match="prolongs the one in .* is not known. Set config.baseline.enabled to False"):
        job.train(longer, tmp_path / "longer")
    assert baseline.FOLDER == "baseline" and not (tmp_path / "longer").exists()
