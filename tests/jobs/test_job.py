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

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data import sources
from emokd.errors import InputError
from emokd.inference import records
from emokd.inference.finding import find_pictures
from emokd.inference.loading import load
from emokd.jobs import datasets, job, scoring
from emokd.jobs.workdir import check, claim
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import bounded, smkd, supervised
from emokd.weights import model_folder
from emokd.weights.description import sealed


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
    again = scoring.evaluate_student(workdir, "test")
    for name in ("accuracy", "macro_f1", "nll"):
        assert again["expression"][name] == pytest.approx(scores["student"]["expression"][name], rel=1e-5)


TEACHER = """
from emokd.recipes import supervised
from small_jobs import paint


def get_config(arg=""):
    config = paint(supervised.default_config(), steps=2)
    config.targets = ("expression", "valence_arousal")
    config.devices = 1
    return config
"""


@pytest.fixture(scope="module")
def with_its_teacher(tmp_path_factory):
    """A whole run that trains its teacher on its own fold of people: its configuration, folder and scores."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "teacher.py").write_text(TEACHER)
    config = paint(bounded.default_config(), steps=3)
    config.devices = 1
    config.data.split.update({"use_prescribed": False, "by_group": True, "folds": 3, "fold": 1, "seed": 1})
    config.teachers.one = defaults.teacher(train=str(folder / "teacher.py"))
    return config.lock(), folder / "run", job.train(config, folder / "run", report=False)


def test_a_run_trains_its_teacher_on_its_own_split_and_is_taught_by_it(with_its_teacher):
    config, workdir, scores = with_its_teacher
    folder = workdir / "teachers" / "one"
    trained = json.loads((folder / "config.json").read_text())
    assert trained["data"]["split"] == config.data.split.to_dict()
    assert (trained["recipe"], trained["phases"]["train"]["duration_steps"]) == ("supervised", 2)
    # Its answers on the run's test split are those that it was scored on itself.
    own, seen = json.loads((folder / "scores.json").read_text()), scores["teachers"]["one"]
    assert own["examples"] == scores["examples"]
    assert seen["expression"]["confusion"] == own["student"]["expression"]["confusion"]
    assert seen["expression"]["nll"] == pytest.approx(own["student"]["expression"]["nll"], rel=1e-5)
    for name in ("valence", "arousal"):
        assert seen["valence_arousal"][name]["rmse"] == pytest.approx(own["student"]["valence_arousal"][name]["rmse"])
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any("beaten/one" in row for row in rows)
    assert scores["weights"]["distill"]["mean"] == {"one": pytest.approx(1)}


def test_a_run_that_continues_does_not_train_its_teacher_again(with_its_teacher, tmp_path):
    config, finished, scores = with_its_teacher
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "scores.json").unlink()
    shutil.rmtree(workdir / "teachers" / "one" / "checkpoints")  # training would make them anew
    again = job.train(config, workdir, report=False)
    assert not (workdir / "teachers" / "one" / "checkpoints").exists()
    assert (again["student"], again["teachers"]) == (scores["student"], scores["teachers"])


def test_a_teacher_of_another_data_set_keeps_its_own_split(tmp_path, monkeypatch):
    (tmp_path / "teacher.py").write_text(TEACHER)
    data = defaults.data()
    data.source, data.split.seed = "image_folder", 7
    trained = []
    monkeypatch.setattr(job, "train", lambda config, folder, **_: trained.append((config.data.split.seed, folder)))
    student = job.teacher_trainer(tmp_path, data)(str(tmp_path / "teacher.py"), pathlib.Path("one"), ())
    assert trained == [(0, tmp_path / "teachers" / "one")]
    assert student == tmp_path / "teachers" / "one" / "student"


def answers(config, workdir):
    """What the student's folder says of the whole test split at once, in float64, and the split's targets."""
    test = datasets.load_splits(config)["test"]
    pixels = np.stack([test.inputs["image"](i) for i in range(len(test))]).astype(np.float32) / 255
    model = model_folder.load_trained(workdir / "student")
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, model.spec.preprocessing(pixels))
    affect = None if signals.valence_arousal is None else np.asarray(signals.valence_arousal, np.float64)
    return np.asarray(signals.logits, np.float64), affect, test.columns


@pytest.mark.parametrize("run", ["finished", "with_its_teacher"])
def test_scores_are_those_of_the_students_answers_to_an_odd_number_of_examples(run, request):
    """No row of the last batch's padding counts, and none of the test split is left out."""
    config, workdir, _ = request.getfixturevalue(run)
    scores = json.loads((workdir / "scores.json").read_text())
    logits, affect, columns = answers(config, workdir)
    labels, rows = columns["expression"], np.arange(len(logits))
    assert scores["examples"] == len(rows) and len(rows) % 2 == 1 and len(rows) > config.batch_size
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    said, confidence, own = probabilities.argmax(1), probabilities.max(1), scores["student"]["expression"]
    assert own["count"] == len(rows)
    assert own["confusion"] == [[int(((labels == t) & (said == p)).sum()) for p in range(8)] for t in range(8)]
    present = np.unique(labels)
    twice = np.array([2 * ((said == c) & (labels == c)).sum() for c in range(8)])
    either = np.array([(said == c).sum() + (labels == c).sum() for c in range(8)])
    bins = np.ceil(confidence * 15)
    gaps = [abs(((said == labels) - confidence)[bins == b].sum()) for b in range(1, 16)]
    expected = {
        "accuracy": (said == labels).mean(),
        "balanced_accuracy": np.mean([(said == labels)[labels == c].mean() for c in present]),
        "macro_f1": (twice / np.maximum(either, 1)).mean(),
        "nll": -np.log(probabilities[rows, labels]).mean(),
        "ece": sum(gaps) / len(rows),
    }
    assert {name: own[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    for column, name in enumerate(("valence", "arousal") if affect is not None else ()):
        p, t = np.clip(affect[:, column], -1, 1), columns["valence_arousal"][:, column].astype(np.float64)
        (var_p, covariance), (_, var_t) = np.cov(p, t, bias=True)
        found = scores["student"]["valence_arousal"][name]
        assert found["count"] == len(rows)
        assert found["rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()), rel=1e-4)
        assert found["ccc"] == pytest.approx(2 * covariance / (var_p + var_t + (p.mean() - t.mean()) ** 2), abs=1e-5)
        assert found["pcc"] == pytest.approx(np.corrcoef(p, t)[0, 1], abs=1e-4)


@pytest.mark.parametrize("recipe", [bounded, smkd, supervised])
def test_a_student_starts_from_the_weights_of_its_init(recipe, tmp_path, teachers):
    """The backbone's parameters and statistics are the file's, to the bit; the heads are as fresh as without it."""
    spec = NetworkSpec("basic_cnn", {"width": 2}, {"pretrained": 5}, preprocessing=Preprocessing(SIZE))
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), functional(spec).abstract)
    model_folder.save_model(tmp_path / "imported", spec, params, stats, {"source": "test"})
    config = paint(recipe.default_config(), steps=1)
    if recipe is smkd:
        config.teachers.one = defaults.teacher(checkpoint=teachers["one"])
    started, fresh = (
        job.create_job(configuration.locked(config, changes), None).programs.create(jax.random.key(0))
        for changes in ({"student.init": str(tmp_path / "imported")}, {})
    )
    found = (started.params["student"]["backbone"], started.stats["student"]["backbone"])
    jax.tree.map(np.testing.assert_array_equal, found, (params["backbone"], stats["backbone"]))
    jax.tree.map(np.testing.assert_array_equal, started.params["student"]["heads"], fresh.params["student"]["heads"])
    kernels = [state.params["student"]["backbone"]["convs"][0]["kernel"] for state in (started, fresh)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).all()


@pytest.mark.parametrize(
    ("backbone", "width", "wanted"),
    [
        ("basic_cnn", 4, r"a basic_cnn with options \{'width': 4\}"),
        ("mobilenet_v2", 0.35, r"a mobilenet_v2 with options \{'width': 0.35\}"),
    ],
)
def test_an_init_that_does_not_fit_says_what_it_is_and_what_is_wanted(backbone, width, wanted, teachers):
    config = paint(supervised.default_config(), steps=1)
    config.student = defaults.network(backbone, size=SIZE, width=width)
    config.student.init = teachers["one"]
    given = r"config.student.init is a basic_cnn with options \{'width': 3, 'size': 16\} \(one \(sha256 \w+\)\)"
    with pytest.raises(InputError, match=f"^{given}, but config.student asks for {wanted}."):
        job.create_job(config.lock(), None)


@pytest.mark.slow
def test_a_run_in_bfloat16_is_scored_in_it_and_stored_in_float32(tmp_path, teachers):
    changes = {"precision": "bfloat16", "accumulate": 2, "remat": True, "devices": 4}
    scores = job.train(configuration.locked(make_config(teachers), changes), tmp_path / "run")
    again = scoring.evaluate_student(tmp_path / "run", "test")
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
    looks = records.look_at(load(workdir, batch_size=2), find_pictures([str(tmp_path)]))
    found = [records.of_picture(each, look, faces=False) for each, look in looks]
    assert [pathlib.Path(r["file"]).name for r in found] == ["0.png", "1.png", "2.png", "broken.png"]
    assert "broken.png" in found[3]["error"]
    pixels = model.spec.preprocessing(np.stack(images).astype(np.float32) / 255)
    logits = np.asarray(functional(model.spec)(model.params, model.stats, pixels)[0].logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for record, expected in zip(found[:3], probabilities, strict=True):
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
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    check(tmp_path, config)
    with pytest.raises(InputError, match="these keys differ: data.split.by_group"):
        check(tmp_path, configuration.locked(config, {"data.split.by_group": False}))


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
    assert not (tmp_path / "run").exists()


def test_a_student_of_other_classes_than_the_data_is_refused(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    description = json.loads((workdir / "student" / "model.json").read_text())
    description["spec"]["classes"]["expression"][0] = "bored"
    (workdir / "student" / "model.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match="The student's classes of 'expression' are"):
        scoring.evaluate_student(workdir, "test")


def test_evaluation_chooses_devices_and_batch_and_scores_do_not_depend_on_them(finished, tmp_path):
    """As on a machine with other devices than the run had: 100 are not here, and 12 rows do not divide over 8."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"batch_size": 12, "devices": 100}))
    expected = finished[2]["student"]["expression"]
    for flags in ({}, {"devices": 1, "batch_size": 5}, {"batch_size": 100}):
        found = scoring.evaluate_student(workdir, "test", **flags)["expression"]
        assert found["confusion"] == expected["confusion"] and found["count"] == 11
        for name in ("accuracy", "macro_f1", "nll", "ece"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5), (flags, name)
    for flags in ({"devices": 9}, {"devices": -1}, {"batch_size": -1}):
        with pytest.raises(InputError, match=r"--devices=.* there are 8 devices here.* 0 for all"):
            scoring.evaluate_student(workdir, "test", **flags)


def test_evaluation_by_group_splits_the_same_answers(finished):
    scores = scoring.evaluate_student(finished[1], "test", by="group")
    groups, whole = scores["by"]["groups"], scores["expression"]
    assert len(groups) > 1 and sum(entry["examples"] for entry in groups.values()) == whole["count"]
    right = sum(entry["expression"]["accuracy"] * entry["examples"] for entry in groups.values())
    assert right == pytest.approx(whole["accuracy"] * whole["count"])
    assert np.array_equal(
        sum(np.array(entry["expression"]["confusion"]) for entry in groups.values()), whole["confusion"]
    )
