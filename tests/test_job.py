"""Jobs from configuration to scores: what a run writes, its student in use, what is refused."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from absl import logging
from PIL import Image
from small_jobs import SIZE, paint

from emokd import config as configuration
from emokd import defaults, job
from emokd.data import sources
from emokd.errors import InputError
from emokd.inference import Predictor, find_pictures
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.weights import model_folder
from emokd.workdir import claim


def save_teacher(folder: pathlib.Path, seed: int) -> str:
    """A random network in a model folder, standing for a teacher that somebody trained."""
    spec = NetworkSpec("basic_cnn", {"width": 3, "size": SIZE}, {"pretrained": 5}, preprocessing=Preprocessing(SIZE))
    params, stats = functional(spec).init(jax.random.key(seed))
    model_folder.save_model(folder, spec, params, stats, {"source": "test"})
    return str(folder)


def make_config(teachers: dict[str, str]):
    config = paint(smkd.default_config(), steps=3)
    for name, checkpoint in teachers.items():
        config.teachers[name] = defaults.teacher(checkpoint=checkpoint)
    return config.lock()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {"one": save_teacher(folder / "one", 1), "two": save_teacher(folder / "two", 2)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, teachers):
    """A whole run: its configuration, folder and scores."""
    workdir = tmp_path_factory.mktemp("job") / "run"
    config = make_config(teachers)
    return config, workdir, job.train(config, workdir)


def test_a_run_leaves_everything_behind(finished):
    _, workdir, scores = finished
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "checkpoints", "student", "metrics.jsonl", "scores.json", "report.html"} <= names
    assert json.loads((workdir / "scores.json").read_text()) == scores
    assert set(scores["teachers"]) == {"one", "two"}
    assert scores["examples"] == 11
    assert scores["student"]["parameters"] > 0 and scores["student"]["macs"] > 0
    assert "synthetic" in scores["data"]


def test_mean_weights_are_kept_by_phase_and_class(finished):
    weights = finished[2]["weights"]
    assert set(weights) == {"distill"}
    assert sum(weights["distill"]["mean"].values()) == pytest.approx(1, abs=1e-5)
    for by_teacher in weights["distill"]["by_class"].values():
        assert sum(by_teacher.values()) == pytest.approx(1, abs=1e-5)


def test_the_student_folder_holds_the_student_alone(finished):
    spec, params, stats, provenance = model_folder.load_model(finished[1] / "student")
    assert spec.heads == {"expression": 8} and len(spec.classes["expression"]) == 8
    assert set(params) == {"backbone", "heads"} and set(stats) == {"backbone"}
    assert provenance["step"] == finished[2]["selected_step"]


def test_evaluating_the_student_folder_gives_the_runs_scores(finished):
    _, workdir, scores = finished
    again = job.evaluate_student(workdir, "test")
    for name in ("accuracy", "macro_f1", "nll"):
        assert again["expression"][name] == pytest.approx(scores["student"]["expression"][name], rel=1e-5)


@pytest.mark.slow
def test_a_run_in_bfloat16_is_scored_in_it_and_stored_in_float32(tmp_path, teachers):
    changes = {"precision": "bfloat16", "accumulate": 2, "remat": True, "devices": 4}
    scores = job.train(configuration.locked(make_config(teachers), changes), tmp_path / "run")
    again = job.evaluate_student(tmp_path / "run", "test")
    assert again["expression"]["nll"] == pytest.approx(scores["student"]["expression"]["nll"], rel=1e-4)
    model, seen_as = model_folder.load_with_canvas(tmp_path / "run" / "student")
    assert seen_as.precision == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves((model.params, model.stats))} == {np.dtype("float32")}


def test_a_finished_run_says_so(finished, monkeypatch):
    config, workdir, scores = finished
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *args: said.append(text % args))
    assert job.train(config, workdir) == scores
    assert any("is done already" in text for text in said)


def test_another_configuration_is_refused_with_its_keys(finished):
    config, workdir, _ = finished
    with pytest.raises(InputError, match=r"these keys differ: phases.distill.learning_rate, seed"):
        job.train(configuration.locked(config, {"seed": 1, "phases.distill.learning_rate": 0.5}), workdir)


def test_settings_of_operation_may_change(finished):
    config, workdir, scores = finished
    assert job.train(configuration.locked(config, {"data.num_threads": 2, "log.every_steps": 7}), workdir) == scores


def test_predict_agrees_with_the_network(finished, tmp_path):
    _, workdir, _ = finished
    examples = sources.load("painter", "", {"size": SIZE, "train": 3, "validation": 0, "test": 0, "seed": 5})
    images = [examples.inputs["image"](i) for i in range(3)]
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    model, seen_as = model_folder.load_with_canvas(workdir / "student")
    assert seen_as == model_folder.SeenAs(SIZE, "crop", "landmarks")
    predictor = Predictor(model, canvas=seen_as.canvas, fit=seen_as.fit, batch_size=2)
    records = list(predictor.predict(find_pictures([str(tmp_path)])))
    assert [pathlib.Path(r["file"]).name for r in records] == ["0.png", "1.png", "2.png", "broken.png"]
    assert "broken.png" in records[3]["error"]
    pixels = model.spec.preprocessing(np.stack(images).astype(np.float32) / 255)
    logits = np.asarray(functional(model.spec)(model.params, model.stats, pixels)[0].logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for record, expected in zip(records[:3], probabilities, strict=True):
        np.testing.assert_allclose(list(record["expression_probabilities"].values()), expected, atol=2e-5)
        assert record["expression"] == model.spec.classes["expression"][expected.argmax()]


def test_a_path_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="There is no file or folder /nowhere/at/all"):
        find_pictures(["/nowhere/at/all"])


def test_a_folder_without_pictures_is_said_so(tmp_path):
    with pytest.raises(InputError, match="There is no picture"):
        find_pictures([str(tmp_path)])


def test_a_run_of_an_older_emokd_without_a_newer_key_is_continued(tmp_path):
    config = make_config({})
    claim(tmp_path, config)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["data"]["split"]["by_group"], stored["distance"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    claim(tmp_path, config)
    with pytest.raises(InputError, match="these keys differ: data.split.by_group"):
        claim(tmp_path, configuration.locked(config, {"data.split.by_group": True}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 64},
            "config.batch_size is 64, but the training split of painted_faces .* has only 24 examples",
        ),
        ({"recipe": "smdk"}, "config.recipe is 'smdk'. Did you mean 'smkd'"),
        ({"data.source": "paynter"}, "Did you mean 'painter'"),
        ({"student.backbone": "basic_cn"}, "Did you mean 'basic_cnn'"),
        ({"teachers.one.checkpoint": "gone/away"}, "config.teachers.one.checkpoint: there is no gone/away"),
        ({"phases.probe.schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"optimizer.name": "adan"}, "Did you mean 'adam'"),
        ({"batch_size": 12, "devices": 8}, "does not divide over 8 devices"),
    ],
)
def test_wrong_settings_name_the_key_and_the_remedy(teachers, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        job.train(configuration.locked(make_config(teachers), changes), tmp_path / "run")
    assert not (tmp_path / "run" / "scores.json").exists()


def test_a_student_of_other_classes_than_the_data_is_refused(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    description = json.loads((workdir / "student" / "model.json").read_text())
    description["spec"]["classes"]["expression"][0] = "bored"
    (workdir / "student" / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="The student's classes of 'expression' are"):
        job.evaluate_student(workdir, "test")
