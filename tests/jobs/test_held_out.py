"""What a run is scored on: required, and kept out of its teachers' training and of its extra pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.jobs import datasets, held_out, job, models
from emokd.jobs.held_out import HeldOut
from emokd.models.network import TrainedModel
from emokd.recipes import supervised


def section(source, directory="", **changes):
    data = defaults.data()
    data.source, data.dir = source, directory
    data.options = changes.pop("options", {})
    data.split.update(changes)
    return data


def teacher_of(source, directory="", **changes):
    config = supervised.default_config()
    config.data = section(source, directory, **changes)
    return config


def folder(place, n=24):
    """Pictures of two classes; the same ones in every folder."""
    for i in range(n):
        (place / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((24, 24)).save(place / "ab"[i % 2] / f"{i}.png")
    return str(place)


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_run_without_a_split_to_be_scored_on_is_refused(missing, tmp_path):
    config = paint(supervised.default_config(), steps=1)
    config.data.split.update({"use_prescribed": False, "by_group": False, "train": 0.9, "validation": 0.1, "test": 0.1})
    config.data.split[missing] = 0.0
    config.data.options.update({"train": 120, "validation": 0, "test": 0})
    match = rf"has no {missing} split \(config.data.split: .*Give config.data.split.{missing} a share above 0"
    with pytest.raises(InputError, match=match):
        job.create_job(config.lock(), None)


def test_a_share_of_nothing_is_no_matter_where_the_set_prescribes_the_split():
    config = paint(supervised.default_config(), steps=1)
    config.data.split.update({"train": 1.0, "validation": 0.0, "test": 0.0})
    held_out.require_scored_splits(config, datasets.load_splits(config))


@pytest.mark.parametrize(("own", "run"), [("ravdess", "ravdess_features"), ("ravdess_features", "ravdess_features")])
def test_a_teacher_of_the_same_set_gets_the_runs_folder_fold_and_split(own, run):
    config = teacher_of(own, options={"fold": 0})
    data = section(run, "/mine", options={"fold": 3}, seed=7)
    held_out.for_teacher(config, data)
    assert (config.data.source, config.data.dir, config.data.options.fold) == (run, "/mine", 3)
    assert config.data.split.seed == 7
    data.options = {}
    held_out.for_teacher(config, data)
    assert "fold" not in config.data.options


def test_a_teacher_keeps_what_does_not_decide_the_split_and_a_folder_of_its_own():
    config = teacher_of("oasis", options={"task": "affect"})
    held_out.for_teacher(config, section("oasis", "/mine", options={"task": "terciles"}, seed=7))
    assert (config.data.dir, config.data.options.task, config.data.split.seed) == ("/mine", "affect", 7)
    config = teacher_of("image_folder", "/others")
    held_out.for_teacher(config, section("image_folder", "/mine", seed=7))
    assert (config.data.dir, config.data.split.seed) == ("/others", 0)
    config = teacher_of("fi")
    held_out.for_teacher(config, section("fi_subset", seed=7))
    assert (config.data.source, config.data.split.seed) == ("fi_subset", 7)


def test_sets_are_the_same_by_source_or_by_place(tmp_path):
    same = held_out.same_set
    assert same(section("fi"), section("fi_subset", "/mine"))
    assert not same(section("fi"), section("oasis"))
    assert same(section("manifest", str(tmp_path)), section("manifest", f"{tmp_path}/../{tmp_path.name}"))
    assert not same(section("manifest", str(tmp_path)), section("manifest", f"{tmp_path}/a"))


def test_a_teacher_of_the_same_pictures_elsewhere_learns_from_none_that_is_scored(tmp_path):
    config = teacher_of("image_folder", folder(tmp_path / "run"))
    run = HeldOut(config.data, datasets.load_splits(config))
    other = teacher_of("image_folder", folder(tmp_path / "other"), seed=5)
    before = datasets.load_splits(other)
    scored = {key for part in run.parts() for key in part.keys}
    assert scored & set(before["train"].keys)
    after = held_out.keep_out(other, before, [run])
    assert set(after["train"].keys) == set(before["train"].keys) - scored
    assert not set(after["validation"].keys) & set(run.splits["test"].keys)


def test_a_teacher_of_the_same_split_loses_nothing(tmp_path):
    config = teacher_of("image_folder", folder(tmp_path / "run"))
    parts = datasets.load_splits(config)
    after = held_out.keep_out(config, parts, [HeldOut(config.data, parts)])
    assert all(after[name] is parts[name] for name in parts)


def test_painted_teachers_with_other_numbers_learn_from_no_scored_face():
    config = paint(supervised.default_config(), steps=1)
    config.data.options.update({"train": 60, "validation": 20, "test": 20})
    config.data.split.update({"use_prescribed": False, "by_group": False, "train": 0.4, "validation": 0.3, "test": 0.3})
    run = HeldOut(config.data, datasets.load_splits(config))
    teacher = paint(supervised.default_config(), steps=1)
    after = held_out.keep_out(teacher, datasets.load_splits(teacher), [run])
    scored = {key for part in run.parts() for key in part.keys}
    assert after["train"].keys and not scored & set(after["train"].keys)


def test_extra_pictures_are_none_of_the_scored_ones(tmp_path):
    config = teacher_of("image_folder", folder(tmp_path / "run"))
    config.data.extra = {"source": "image_folder", "dir": folder(tmp_path / "extra", 40), "options": {}}
    parts = datasets.load_splits(config)
    extra = datasets.load_examples(config.data.extra, 24)
    left = held_out.keep_extra_out(config, extra, [HeldOut(config.data, parts)])
    scored = {key for name in ("validation", "test") for key in parts[name].keys}
    assert set(left.keys) == set(extra.keys) - scored and scored


def people(place, table, pictures):
    """A table of pictures of 8 people; `pictures` of each."""
    rows = []
    (place / "images").mkdir(parents=True, exist_ok=True)
    for person in range(8):
        for i in pictures:
            name = f"s{person}_{i}.png"
            pixels = np.random.default_rng(100 * person + i).integers(0, 255, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24)).save(place / "images" / name)
            rows.append(f"{name},{'ab'[i % 2]},s{person}")
    (place / table).write_text("\n".join(["path,label,group", *rows]) + "\n")
    return str(place)


def test_extra_pictures_of_people_who_are_scored_are_left_out_or_said(tmp_path, caplog):
    config = teacher_of("manifest", people(tmp_path, "labels.csv", range(4)))
    people(tmp_path, "more.csv", range(4, 8))
    parts = datasets.load_splits(config)
    scored = {group for name in ("validation", "test") for group in parts[name].groups}
    for directory, left_out in ((tmp_path, scored), (people(tmp_path / "other", "more.csv", range(4, 8)), set())):
        config.data.extra = {"source": "manifest", "dir": str(directory), "options": {"table": "more.csv"}}
        extra = datasets.load_examples(config.data.extra, 24)
        caplog.clear()
        left = held_out.keep_extra_out(config, extra, [HeldOut(config.data, parts)])
        assert set(extra.groups) - set(left.groups) == left_out and scored
        (message,) = [record.getMessage() for record in caplog.records if "groups (subjects)" in record.getMessage()]
        assert ("left out" in message) == bool(left_out) and min(scored) in message


def test_a_checkpoint_of_another_division_is_warned_of(tmp_path, caplog):
    config = teacher_of("image_folder", folder(tmp_path / "run"))
    run = HeldOut(config.data, datasets.load_splits(config))

    def warned(trained):
        caplog.clear()
        description = {"provenance": {"config": configuration.to_json(trained)}}
        (tmp_path / "model.json").write_text(json.dumps(description))
        with caplog.at_level("WARNING"):
            held_out.warn_of_checkpoint("one", tmp_path, run, datasets.load_splits)
        return [record.getMessage() for record in caplog.records if "'one'" in record.getMessage()]

    assert not warned(config)
    (message,) = warned(teacher_of("image_folder", config.data.dir, seed=5))
    learned = set(datasets.load_splits(teacher_of("image_folder", config.data.dir, seed=5))["train"].keys)
    count = len(learned & set(run.splits["test"].keys))
    assert f"{count} of {len(run.splits['test'])} of the test split" in message and "data" not in message.split("(")[0]
    assert not warned(teacher_of("oasis", seed=5))
    for text in ("{", '{"provenance": null}', '{"provenance": {"config": "{}"}}'):
        (tmp_path / "model.json").write_text(text)
        held_out.warn_of_checkpoint("one", tmp_path, run, datasets.load_splits)


def test_a_teachers_file_may_be_one_set_of_weights_of_several(tmp_path, monkeypatch):
    """A run asks each file what it has learned from, and a key is no part of its name."""
    config = teacher_of("image_folder", folder(tmp_path / "run"))
    (tmp_path / "weights.pt").touch()
    config.teachers = {"one": defaults.teacher("resnet18", checkpoint=f"{tmp_path}/weights.pt#state_dict_ema")}
    monkeypatch.setattr(models, "load_model", lambda path, section, key: TrainedModel(None, {}, {}, path))
    run = HeldOut(config.data, datasets.load_splits(config))
    assert models.load_models(config, None, [run])["one"].origin.endswith("weights.pt#state_dict_ema")
