"""What a run began with besides its data: teachers' files, their configurations, devices; and the page that reports."""

import dataclasses
import json
import pathlib

import numpy as np
import PIL.Image
import pytest
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs import began, datasets, finished, job, models, workdir
from emokd.jobs.record import write
from emokd.recipes import bounded, mtpkdot, smkd
from emokd.reporting.report import write_report

TEACHER = """
from emokd.recipes import supervised
from small_jobs import paint


def get_config(arg=""):
    # A remark changes nothing.
    return paint(supervised.default_config(), steps=2)
"""


CHANGED = """
    config.log.every_steps = 7
    return config
"""


def examples(names, labels, *, contents=None, classes=("sad", "happy")):
    contents = contents or [f"bytes of {name}" for name in names]
    return Examples(
        "made_up",
        list(names),
        {"expression": np.array(labels, np.int32), "valence_arousal": np.full((len(names), 2), np.nan, np.float32)},
        {"expression": tuple(classes)},
        {},
        contents.__getitem__,
    )


def splits(train="abcd", test="ef", **changes):
    """Each letter has a label of its own, wherever it is."""
    return {
        name: examples(names, [ord(letter) % 2 for letter in names], **changes)
        for name, names in {"train": train, "test": test}.items()
    }


def describe(parts, config=None, extra=None):
    return began.describe(config or smkd.default_config(), parts, extra)


def differences(was, now):
    """As stored in a file."""
    return began.differences(json.loads(json.dumps(was)), now)


def test_the_same_data_differ_in_nothing_in_whatever_order():
    was = describe(splits())
    assert differences(was, describe(splits())) == []
    assert differences(was, describe(splits("badc", "fe"))) == []


def test_members_of_splits_that_change_places_are_named():
    [change] = differences(describe(splits("abcd", "ef")), describe(splits("abce", "df")))
    assert "2 examples are in another split" in change and "d from train to test" in change


def test_columns_are_told_apart():
    now = splits()
    now["test"].columns["valence_arousal"][1] = (0.5, -0.0)
    [change] = differences(describe(splits()), describe(now))
    assert change == "valence_arousal of 1 examples (f)"
    same = splits()
    same["test"].columns["valence_arousal"][1] = (0.5, 0.0)
    assert differences(describe(now), describe(same)) == []


def test_a_class_list_in_another_order_is_named():
    [change] = differences(describe(splits()), describe(splits(classes=("happy", "sad"))))
    assert "the classes of expression (sad, happy then, happy, sad now)" in change


def test_unlabelled_pictures_count_as_well():
    was = describe(splits(), extra=examples("xy", [0, 0]))
    [change] = differences(was, describe(splits(), extra=examples("xz", [0, 0])))
    assert "unlabelled" in change and "1 new (z), 1 gone (y)" in change
    [change] = differences(was, describe(splits()))
    assert "2 unlabelled examples in no split then, 0 now: 2 gone (x, y)" in change


@pytest.mark.parametrize("key", ["student.init", "teachers.one.checkpoint"])
def test_a_file_of_another_content_under_the_same_path_is_named(tmp_path, key):
    config = smkd.default_config()
    config.teachers.one = defaults.teacher("basic_cnn")
    config = configuration.locked(config, {key: str(tmp_path / "weights.pt")})
    (tmp_path / "weights.pt").write_bytes(b"one")
    was = describe(splits(), config)
    (tmp_path / "weights.pt").write_bytes(b"two")
    [change] = differences(was, describe(splits(), config))
    assert change.startswith(f"config.{key} is another file (sha256 ")
    (tmp_path / "weights.pt").unlink()  # that is said by who needs it
    assert differences(was, describe(splits(), config)) == []


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"<html>", b"{", b'[{"paths": ["gone"], "weights": []}]'])
def test_a_file_that_is_no_weights_is_compared_all_the_same(tmp_path, content):
    """As the scores of `start_from` are, and files of answers; whoever reads it says what is wrong with it."""
    (tmp_path / "scores.json").write_bytes(content)
    config = configuration.locked(smkd.default_config(), {"start_from": str(tmp_path)})
    was = describe(splits(), config)
    assert differences(was, describe(splits(), config)) == []
    (tmp_path / "scores.json").write_bytes(content + b" ")
    (change,) = differences(was, describe(splits(), config))
    assert change.startswith("config.start_from: ")


def test_a_teacher_of_a_fold_is_the_folds(tmp_path):
    config = smkd.default_config()
    config.teachers.one = defaults.teacher(checkpoint=str(tmp_path / "fold{fold}.npz"))
    config.data.split.fold = 2
    (tmp_path / "fold2.npz").write_bytes(b"two")
    assert began.files_of(config) == {"config.teachers.one.checkpoint": tmp_path / "fold2.npz"}


def test_every_network_of_a_fold_is_the_folds(monkeypatch):
    asked = []
    monkeypatch.setattr(models, "load_model", lambda path, section, key: asked.append((key, path)))
    config = configuration.locked(smkd.default_config(), {"data.split.fold": 3, "student.init": "own/fold{fold}"})
    models.load_models(config, None)
    config = configuration.locked(mtpkdot.default_config(), {"data.split.fold": 3}).unlock()
    config.modalities = {"eye": defaults.modality("features/eye", "mlp")}
    config.modalities.eye.init = "eye{fold}"
    models.load_models(config, None)
    assert asked == [("config.student.init", "own/fold3"), ("config.modalities.eye.init", "eye3")]


def test_the_configuration_of_a_teacher_to_train_is_compared_by_its_keys(tmp_path):
    (tmp_path / "teacher.py").write_text(TEACHER)
    config = bounded.default_config()
    config.teachers.one = defaults.teacher(train=str(tmp_path / "teacher.py"))
    was = describe(splits(), config)
    (tmp_path / "teacher.py").write_text(TEACHER.replace("# A remark changes nothing.", "# Another one."))
    assert differences(was, describe(splits(), config)) == []
    (tmp_path / "teacher.py").write_text(TEACHER.replace("steps=2", "steps=9"))
    [change] = differences(was, describe(splits(), config))
    assert "teachers.one.train" in change and "phases.train.duration_steps" in change


@pytest.mark.parametrize("accept", [False, True])
def test_a_teacher_whose_configuration_changed_stays_what_it_is_where_that_is_accepted(tmp_path, monkeypatch, accept):
    """Not in the teacher's own folder is it refused a second time."""
    file, run = tmp_path / "teacher.py", tmp_path / "run"
    file.write_text(TEACHER)
    workdir.claim(run / "teachers" / "one", configuration.load(str(file)))
    for folder in (run, run / "teachers" / "one"):
        (folder / "scores.json").write_text("{}")
    file.write_text(TEACHER.replace("steps=2)", "steps=9)").replace("return paint(", "config = paint(") + CHANGED)
    seen = []
    monkeypatch.setattr(job, "train", lambda config, folder, **options: seen.append(config))
    data = paint(smkd.default_config(), steps=1).data
    job.teacher_trainer(run, data, accept)(str(file), pathlib.Path("one"), ())
    assert seen[0].phases.train.duration_steps == (2 if accept else 9)
    assert seen[0].log.every_steps == 7  # how it works may follow


def test_the_number_of_devices_may_change():
    """No loss depends on it; the rows that are compared are of the configuration."""
    config = configuration.locked(mtpkdot.default_config(), {"devices": 4})
    fewer = configuration.locked(config, {"devices": 2})
    assert differences(describe(splits(), config), describe(splits(), fewer)) == []


def run_of(folder: pathlib.Path, size: int = 24) -> None:
    """A run's folder as far as a report needs it; `size`: of the training split that it began with."""
    config = paint(smkd.default_config(), steps=1)
    config.data.options.train = size
    now = began.describe(config, *datasets.load_data(config))
    config.data.options.train = 24
    workdir.claim(folder, config)
    began.begin(folder, now, begun=False)
    (folder / "scores.json").write_text(json.dumps({"split": "test", "student": {}}))


def report_on(folder, accept):
    """As the command does."""
    return write_report(folder, finished.remarks(folder, datasets.load_data, accept)).read_text()


def test_a_report_is_refused_or_says_what_has_changed(tmp_path):
    run_of(tmp_path / "same")
    assert "began with something else" not in report_on(tmp_path / "same", accept=False)
    run_of(tmp_path / "run", size=32)
    with pytest.raises(InputError, match="52 examples then, 44 now: 8 gone .*--accept_changed_data"):
        report_on(tmp_path / "run", accept=False)
    assert not (tmp_path / "run" / "report.html").exists()
    assert "began with something else: 52 examples then, 44 now" in report_on(tmp_path / "run", accept=True)


def test_a_report_where_the_data_are_not_says_that_they_were_not_compared(tmp_path):
    run_of(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"] |= {"source": "image_folder", "dir": "/nowhere/at/all", "options": {}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert "could not be compared" in report_on(tmp_path / "run", accept=False)


def folder_of_pictures(folder: pathlib.Path, levels: int) -> None:
    for i in range(levels):
        (folder / f"{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (16 + i, 16, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i}.bmp")  # no two of one size


@pytest.mark.parametrize("compare", [False, True])
def test_a_picture_replaced_by_one_of_the_same_size_is_named(tmp_path, compare):
    """In the splits and among the extra pictures; however the search for copies goes."""
    folder_of_pictures(tmp_path, 20)
    config = paint(smkd.default_config(), steps=1)
    config.data.update({"source": "image_folder", "dir": str(tmp_path)})
    config.data.options, config.data.split.compare_copies = {}, compare
    config.data.extra.update({"source": "image_folder", "dir": str(tmp_path)})
    was = describe(*datasets_and_config(config))
    assert differences(was, describe(*datasets_and_config(config))) == []
    size = (tmp_path / "a" / "4.bmp").stat().st_size
    PIL.Image.fromarray(np.random.default_rng(99).integers(0, 256, (20, 16, 3), np.uint8)).save(tmp_path / "a/4.bmp")
    assert (tmp_path / "a" / "4.bmp").stat().st_size == size
    assert differences(was, describe(*datasets_and_config(config))) == [
        "the content of 1 examples (a/4.bmp)",
        "the content of 1 unlabelled examples in no split (a/4.bmp)",
    ]


def test_pictures_without_labels_that_came_or_went_are_named(tmp_path):
    """Nothing in the configuration says that there are any: they lie in a folder of the set."""
    folder_of_pictures(tmp_path, 20)
    config = paint(smkd.default_config(), steps=1)
    config.data.update({"source": "image_folder", "dir": str(tmp_path)})
    config.data.options = {}
    was = describe(*datasets_and_config(config))
    (tmp_path / "unlabelled").mkdir()
    PIL.Image.fromarray(np.random.default_rng(99).integers(0, 256, (20, 16, 3), np.uint8)).save(
        tmp_path / "unlabelled" / "new.bmp"
    )
    now = describe(*datasets_and_config(config))
    name = "unlabelled/new.bmp"
    assert differences(was, now) == [f"0 unlabelled examples in no split then, 1 now: 1 new ({name})"]
    assert differences(now, was) == [f"1 unlabelled examples in no split then, 0 now: 1 gone ({name})"]


def datasets_and_config(config):
    splits, extra = datasets.load_data(config)
    return splits, config, extra


def test_targets_that_came_or_went_are_named():
    was = describe(splits())
    parts = splits()
    for name, part in parts.items():
        fewer = {column: values for column, values in part.columns.items() if column != "valence_arousal"}
        parts[name] = dataclasses.replace(part, columns=fewer)
    assert differences(was, describe(parts)) == ["the targets: valence_arousal is gone"]
    assert differences(describe(parts), was) == ["the targets: valence_arousal is new"]


def test_a_teachers_folder_with_other_classes_is_another_one(tmp_path):
    config = smkd.default_config()
    config.teachers.one = defaults.teacher("basic_cnn")
    config = configuration.locked(config, {"teachers.one.checkpoint": str(tmp_path)})
    (tmp_path / "weights.safetensors").write_bytes(b"one")

    def described(classes, date):
        spec = {"classes": {"expression": classes}}
        (tmp_path / "model.json").write_text(json.dumps({"spec": spec, "provenance": {"date": date}}))
        return describe(splits(), config)

    was = described(["sad", "happy"], "today")
    assert differences(was, described(["sad", "happy"], "tomorrow")) == []
    (change,) = differences(was, described(["happy", "sad"], "today"))
    assert change.startswith("config.teachers.one.checkpoint is another file")


def test_what_was_accepted_of_a_run_goes_on_through_those_that_begin_with_it(tmp_path):
    """Also where the first of them is gone."""
    began.begin(tmp_path, describe(splits()), begun=False, changes=["config.start_from: first: 2 new", "3 gone"])
    assert began.accepted(tmp_path) == ["config.start_from: first: 2 new", "3 gone"]
    assert began.check_start(tmp_path, describe(splits()), accept=False) == [
        "config.start_from: first: 2 new",
        f"config.start_from: {tmp_path}: 3 gone",
    ]


def change(*path, to=None):
    def changed(record):
        *places, last = path
        for place in places:
            record = record[place]
        if to is None:
            del record[last]
        else:
            record[last] = to

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        *(change(name) for name in ("config", "sets", "classes", "files", "trained", "accepted")),
        change("sets", "train", "keys"),
        change("sets", "train", "columns", to=[]),
        change("sets", "test", to=5),
        change("classes", "expression", to="x"),
        change("files", to={"a": 5}),
        change("accepted", to=[5]),
        change("accepted", to=[{"date": ""}]),
        change("start_from", to={"folder": "x"}),
    ],
)
def test_a_record_that_lacks_what_is_compared_names_its_file_and_the_remedy(tmp_path, damage):
    record = json.loads(json.dumps(describe(splits())))
    write(tmp_path, record)
    assert began.compare(tmp_path, describe(splits()), accept=False) == []
    damage(record)
    write(tmp_path, record)
    with pytest.raises(InputError, match=rf"{workdir.RECORD} does not say what the run began with\. .*or remove it"):
        began.compare(tmp_path, describe(splits()), accept=False)
