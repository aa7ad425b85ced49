"""A run's folder: who may continue there, what a refused command leaves behind, what is lost or damaged in it."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from absl import logging
from PIL import Image
from small_jobs import SIZE, paint

from emokd.configuration import config as configuration
from emokd.errors import InputError
from emokd.jobs import caching, datasets, job, locks, scoring, workdir
from emokd.jobs.record import read
from emokd.recipes import supervised
from emokd.reporting.report import write_report
from emokd.training.programs import Programs
from emokd.training.teacher_weights import TeacherWeights
from emokd.weights import model_folder


def draw(folder: pathlib.Path, count: int, first: int = 0) -> None:
    """Pictures of noise in two classes, `count` of each."""
    for label, name in enumerate(("happy", "sad")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            pixels = np.random.default_rng([label, i]).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")


def make_config(pictures: pathlib.Path, **changes):
    """A run of three epochs on one device."""
    config = paint(supervised.default_config(), steps=1)
    config.devices = 1
    config.data.source, config.data.dir, config.data.options = "image_folder", str(pictures), {}
    length = {"phases.train.duration_epochs": 3.0, "evaluation.every_epochs": 1.0}
    return configuration.locked(config, {**length, **changes})


@pytest.fixture(scope="module")
def shared() -> dict[str, Programs]:
    """Compiled once for all runs of this module."""
    return {}


@pytest.fixture(scope="module")
def original(tmp_path_factory, shared):
    """A finished run, its pictures beside it, and its scores."""
    folder = tmp_path_factory.mktemp("workdir")
    draw(folder / "pictures", 20)
    scores = job.train(make_config(folder / "pictures"), folder / "run", shared=shared)
    return folder, scores


@pytest.fixture
def finished(original, tmp_path):
    """A copy of the finished run: (configuration, its folder, pictures)."""
    shutil.copytree(original[0], tmp_path, dirs_exist_ok=True)
    config = make_config(tmp_path / "pictures")
    (tmp_path / "run" / "config.json").write_text(configuration.to_json(config))
    return config, tmp_path / "run", tmp_path / "pictures"


def unfinish(run: pathlib.Path) -> None:
    """As if the run had been stopped before its scores."""
    (run / "scores.json").unlink()
    shutil.rmtree(run / "student")


def text_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


REFUSED = [
    ({"data.source": "image_foldr"}, "image_folder"),
    ({"data.dir": "/nowhere/at/all"}, "/nowhere/at/all"),
    ({"batch_size": 64}, "batch_size"),
    ({"batch_size": 6, "devices": 4}, "devices"),
    ({"student.backbone": "basic_cn"}, "basic_cnn"),
    ({"student.init": "gone/away"}, "gone/away"),
    ({"optimizer.name": "adan"}, "adam"),
    ({"start_from": "gone/away"}, "gone/away"),
]


@pytest.mark.parametrize(("changes", "names"), REFUSED)
def test_a_refused_command_leaves_not_even_a_folder(original, tmp_path, changes, names):
    config = make_config(original[0] / "pictures", **changes)
    with pytest.raises(InputError, match=names):
        job.train(config, tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_command_changes_nothing_in_a_folder_that_was_there(original, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="batch_size"):
        job.train(make_config(original[0] / "pictures", batch_size=64), tmp_path)
    assert text_of(tmp_path) == {"notes.txt": b"mine"}


def test_the_run_to_start_from_may_be_named_from_another_working_directory(tmp_path):
    """Which run it is is compared by its content; whether there is one is not the same."""
    begun = make_config(tmp_path, start_from="runs/first")
    workdir.claim(tmp_path / "run", begun)
    (tmp_path / "run" / "scores.json").write_text("{}")
    workdir.check(tmp_path / "run", make_config(tmp_path, start_from=str(tmp_path / "runs" / "first")))
    with pytest.raises(InputError, match="these keys differ: start_from"):
        workdir.check(tmp_path / "run", make_config(tmp_path))


def test_a_run_that_ended_before_its_first_checkpoint_does_not_hold_the_folder(finished, tmp_path):
    config, _, pictures = finished
    folder = tmp_path / "begun"
    workdir.claim(folder, config)
    (folder / "teacher_weights.json").write_text('{"distill": {}}')
    (folder / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    other = make_config(pictures, seed=7)
    workdir.claim(folder, other)
    assert json.loads((folder / "config.json").read_text())["seed"] == 7
    assert not (folder / "teacher_weights.json").exists()  # it would have gone into the new run's scores
    (folder / "checkpoints" / "4").mkdir()
    with pytest.raises(InputError, match="these keys differ: seed"):
        workdir.check(folder, config)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.max_bad_fraction": 0.5},
        {"data.num_threads": 3, "data.in_memory": True},
        {"log.every_steps": 7, "checkpoint.keep": 5, "checkpoint.min_seconds": 1.0},
        {"remat": True},
        {"data.licence": "CC BY 4.0"},
        {"devices": 2},
    ],
)
def test_keys_that_change_nothing_learnt_may_change(finished, changes):
    _, run, pictures = finished
    assert job.train(make_config(pictures, **changes), run) == json.loads((run / "scores.json").read_text())


@pytest.mark.parametrize("key", ["seed", "batch_size", "select.metric", "optimizer.weight_decay", "data.view_seed"])
def test_keys_that_change_what_is_learnt_may_not(finished, key):
    _, run, pictures = finished
    value = {"batch_size": 4, "select.metric": "expression/nll", "optimizer.weight_decay": 0.5}.get(key, 1)
    with pytest.raises(InputError, match=f"another configuration; these keys differ: {key}.*another --workdir"):
        job.train(make_config(pictures, **{key: value}), run)


def test_another_configuration_cannot_take_the_name_of_a_run_that_lost_its_own(finished):
    config, run, pictures = finished
    stored = (run / "config.json").read_bytes()
    (run / "config.json").unlink()
    with pytest.raises(InputError, match="these keys differ: seed"):
        job.train(make_config(pictures, seed=1), run)
    assert not (run / "config.json").exists()
    job.train(config, run)  # its own is known from the record
    assert (run / "config.json").read_bytes() == stored


@pytest.mark.parametrize("kept", ["checkpoints", "student", "scores.json"])
def test_results_without_any_configuration_are_nobodys(finished, kept):
    config, run, _ = finished
    for name in {"config.json", workdir.RECORD, "checkpoints", "student", "scores.json"} - {kept}:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(
        InputError, match=r"run holds .* no config.json.* Restore config.json, or use another --workdir"
    ):
        job.train(config, run)
    assert not (run / "config.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b'{"seed": 0,', b"\xff\xfe\x00", b"[1]", b"", b"[" * 100_000, b"{}", b'{"recipe": 5}'),
        *(b'{"recipe": "smkd", "data": 5}', b'{"recipe": "smkd", "batch_size": "x"}', b'{"recipe": "smkd", "a.b": 1}'),
    ],
)
def test_a_damaged_configuration_names_its_file_and_the_remedy(finished, content):
    config, run, _ = finished
    (run / "config.json").write_bytes(content)
    for refused in (lambda: job.train(config, run), lambda: scoring.evaluate_student(run, "test")):
        with pytest.raises(InputError, match=r"run/config.json cannot be read as a configuration: .*remove it"):
            refused()
    (run / "config.json").unlink()
    job.train(config, run)


@pytest.mark.parametrize(
    "content", ['{"student": {', "", "[]", "{}", '{"student": 3}', '{"student": {"a": 1}, "teachers": {"x": 1}}']
)
def test_damaged_scores_name_their_file_and_the_remedy(finished, content):
    config, run, _ = finished
    (run / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"run/scores\.json.*remove it"):
        job.train(config, run)


def test_a_file_in_place_of_a_folder_is_said_so(finished, tmp_path):
    config, run, _ = finished
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file cannot be written .*Give a folder"):
        job.train(config, tmp_path / "file")
    with pytest.raises(InputError, match=r"file/below cannot be written"):
        job.train(config, tmp_path / "file" / "below")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("no folder")
    with pytest.raises(InputError, match=r"checkpoints is a file. Remove it"):
        job.train(config, run)
    (run / "checkpoints").unlink()
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report.html is a folder. Remove it"):
        job.train(config, run)


def test_a_report_that_was_not_written_is_written(finished):
    config, run, _ = finished
    (run / "report.html").unlink()
    job.train(config, run)
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("precision", "float31", r"config.json: precision is 'float31'. Did you mean 'float32'"),
        ("batch_size", 0, r"config.batch_size is 0"),
    ],
)
def test_a_stored_configuration_with_a_wrong_value_is_refused_by_evaluation(finished, key, value, message):
    _, run, _ = finished
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | {key: value}))
    with pytest.raises(InputError, match=message):
        scoring.evaluate_student(run, "test")


def test_a_student_that_is_gone_is_made_again_from_the_checkpoints(finished, original, shared, monkeypatch):
    config, run, _ = finished
    stored = (run / "student" / model_folder.WEIGHTS).read_bytes()
    shutil.rmtree(run / "student")
    with pytest.raises(InputError, match="holds no student: .*train.* again from the checkpoints"):
        scoring.evaluate_student(run, "test")
    scores = job.train(config, run, shared=shared)
    assert (run / "student" / model_folder.WEIGHTS).read_bytes() == stored
    assert scores["student"] == original[1]["student"]
    shutil.rmtree(run / "student")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="neither its student nor the checkpoints .*another --workdir"):
        job.train(config, run)


def test_a_damaged_student_is_not_done(finished):
    config, run, _ = finished
    weights = bytearray((run / "student" / model_folder.WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (run / "student" / model_folder.WEIGHTS).write_bytes(weights)
    with pytest.raises(InputError, match=r"sha256 differs.*remove .*student.*again"):
        job.train(config, run)


def grow(pictures):
    draw(pictures, 20, first=20)


def shrink(pictures):
    (pictures / "happy" / "03.png").unlink()


def relabel(pictures):
    (pictures / "happy" / "03.png").rename(pictures / "sad" / "x03.png")


def repaint(pictures):
    Image.new("RGB", (SIZE, SIZE), "white").save(pictures / "happy" / "03.png")


def add_a_class(pictures):
    (pictures / "angry").mkdir()
    for i in range(20):
        shutil.copy(pictures / "happy" / f"{i:02d}.png", pictures / "angry" / f"{i:02d}.png")
        Image.fromarray(np.full((SIZE, SIZE, 3), i, np.uint8)).save(pictures / "angry" / f"{i:02d}.png")


CHANGES = [
    (grow, r"40 examples then, 80 now: 40 new \(\w+/\d\d.png"),
    (shrink, r"39 now: 1 gone \(happy/03.png"),
    (relabel, r"1 new \(sad/x03.png\), 1 gone \(happy/03.png"),
    (repaint, r"the content of 1 examples \(happy/03.png"),
    (add_a_class, r"the classes of expression \(happy, sad then, angry, happy, sad now"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_data_set_that_changed_is_named_whoever_asks(finished, change, message):
    """The run continues, is found finished, is evaluated: refused alike, and nothing is written."""
    config, run, pictures = finished
    change(pictures)
    before = text_of(run)
    for refused in (lambda: job.train(config, run), lambda: scoring.evaluate_student(run, "test")):
        with pytest.raises(InputError, match=message + ".*--accept_changed_data"):
            refused()
    assert text_of(run) == before
    unfinish(run)
    before = text_of(run)
    with pytest.raises(InputError, match=message + ".*--accept_changed_data"):
        job.train(config, run)
    assert text_of(run) == before


def test_accepted_changes_mark_the_scores_and_the_page(finished, shared):
    config, run, pictures = finished
    relabel(pictures)
    found = scoring.evaluate_student(run, "test", accept_changed_data=True)
    assert any("happy/03.png" in change for change in found["accepted_changes"])
    unfinish(run)
    scores = job.train(config, run, accept_changed_data=True, shared=shared)
    assert any("happy/03.png" in change for change in scores["accepted_changes"])
    assert "happy/03.png" in (run / "report.html").read_text()
    assert job.train(config, run) == scores  # accepted once, it is what the run goes on with


def test_a_run_without_a_record_goes_on_and_says_so(finished, shared, monkeypatch):
    config, run, pictures = finished
    (run / workdir.RECORD).unlink()
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    relabel(pictures)
    job.train(config, run)
    assert sum("does not say what its run began with" in text for text in said) == 1


def test_a_damaged_record_names_its_file_and_the_remedy(finished):
    config, run, _ = finished
    (run / workdir.RECORD).write_text("{")
    with pytest.raises(InputError, match=f"run/{workdir.RECORD} .*or remove it"):
        job.train(config, run)


def test_a_moved_data_set_is_the_same(finished, tmp_path):
    _, run, pictures = finished
    pictures.rename(tmp_path / "elsewhere")
    scores = job.train(make_config(tmp_path / "elsewhere"), run)
    again = scoring.evaluate_student(run, "test")  # which asks the run where they are
    assert again["expression"]["confusion"] == scores["student"]["expression"]["confusion"]


def test_the_record_counts_what_is_there(finished):
    """Number of examples, their names and their splits, against the folder itself and against the job's splits."""
    config, run, pictures = finished
    record = read(run)
    names = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    assert sorted(key for part in record["sets"].values() for key in part["keys"]) == names
    for split, examples in datasets.load_splits(config).items():
        assert record["sets"][split]["keys"] == list(examples.keys)
    assert record["config"]["data"]["dir"] != str(pictures)  # of the original run: it is not compared


def test_a_run_under_way_may_be_evaluated_and_reported_but_not_run_twice(finished):
    config, run, _ = finished
    with locks.held(run):
        before = text_of(run)
        with pytest.raises(InputError, match=rf"run is in use by process {os.getpid()} on .* since "):
            job.train(config, run)
        with pytest.raises(InputError, match=rf"run is in use by process {os.getpid()} on .* since "):
            job.train(make_config(pathlib.Path("/nowhere"), seed=3), run)
        scoring.evaluate_student(run, "test")
        assert text_of(run) == before
        write_report(run)
    assert job.train(config, run)


def test_a_cache_under_way_is_not_written_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_create_job", lambda *_, **__: (None, {}))
    monkeypatch.setattr(caching, "write_cache", lambda *_: {})
    config = make_config(tmp_path)
    with locks.held(tmp_path / "cache"), pytest.raises(InputError, match="cache is in use by process"):
        job.write_cache(config, tmp_path / "cache", None)
    assert job.write_cache(config, tmp_path / "cache", None) == {}


@pytest.mark.parametrize("content", ['{"distill": ', "3", '{"distill": 5}', '{"distill": {"mean": {"one": "x"}}}'])
def test_damaged_weights_of_teachers_name_their_file_and_the_remedy(tmp_path, content):
    (tmp_path / "teacher_weights.json").write_text(content)
    with pytest.raises(InputError, match=r"teacher_weights.json cannot be read .*remove it"):
        TeacherWeights(tmp_path, ("one",), ("joy",)).recall("distill")
