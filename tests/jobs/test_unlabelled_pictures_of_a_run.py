"""A folder with pictures that have no label: who reads them, and that none of them is, or equals, a scored one."""

import itertools
import shutil

import numpy as np
import pytest
from absl import logging
from PIL import Image
from small_jobs import SIZE, paint

from emokd import answers
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.jobs import datasets, held_out, job
from emokd.jobs.held_out import HeldOut
from emokd.recipes import smkd
from emokd.training.streams import Streams


def blocks(seed):
    """A picture of coarse noise, whose copies are recognised in other formats and sizes too."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST)


@pytest.fixture
def folder(tmp_path):
    """40 labelled pictures of two classes and 10 without a label."""
    for i in range(50):
        place = tmp_path / ("ab"[i % 2] if i < 40 else "unlabelled")
        place.mkdir(exist_ok=True)
        blocks(i).save(place / f"{i}.png")
    return tmp_path


@pytest.fixture
def config(folder):
    config = paint(smkd.default_config(), steps=2)
    config.devices = 1
    config.data.source, config.data.dir, config.data.options = "image_folder", str(folder), {}
    config.teachers.one = defaults.teacher("basic_cnn", task="expression", width=1)
    return config


@pytest.fixture
def said(monkeypatch):
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(logging, "log", lambda level, text, *args: lines.append(text % args))
    return lines


def number(key: str) -> int:
    """Which picture it is: copies have its number too."""
    return int(key.rsplit("/")[-1].split(".")[0])


def numbers(examples: Examples) -> set[int]:
    return {number(key) for key in examples.keys}


def copy_scored(config, folder) -> set[int]:
    """Puts copies of a scored picture of each split among those without a label; their numbers."""
    parts = datasets.load_splits(config)
    copied = {name: number(parts[name].keys[0]) for name in ("train", "validation", "test")}
    blocks(copied["train"]).save(folder / "unlabelled" / f"{copied['train']}.png")
    blocks(copied["validation"]).save(folder / "unlabelled" / f"{copied['validation']}.bmp")
    blocks(copied["test"]).resize((40, 40)).save(folder / "unlabelled" / f"{copied['test']}.jpg", quality=90)
    return {copied["validation"], copied["test"]}


def test_imitation_alone_reads_them_and_none_is_scored(config, folder, said):
    scored = copy_scored(config, folder)
    made = job.create_job(config.lock(), None)
    assert {40, 49} < numbers(made.extra) and not numbers(made.extra) & scored and len(made.extra) == 11
    assert any("13 pictures of" in line and "have no label" in line for line in said)
    [line] = [line for line in said if "left out" in line]
    assert "2 of 13 examples of the pictures without labels are left out" in line and "validation or test split" in line
    assert set.union(*map(numbers, made.splits.values())) == set(range(40))
    assert made.splits["train"].classes == {"expression": ("a", "b")}
    labelled, others = (set(part.ids.tolist()) for part in (made.splits["train"], made.extra))
    streams = Streams(made.config, made.programs.mesh, splits=made.splits)
    for phase in made.recipe.phases:
        extra = made.without_labels(phase)
        taken = itertools.islice(streams.training(made.splits["train"], extra, 0), 6)
        rows = {int(i): int(label) for b in taken for i, label in zip(b["id"], b["expression"], strict=True)}
        assert set(rows) == (labelled | others if phase.name == "distill" else labelled), phase.name
        assert all((rows[i] < 0) == (i in others) for i in rows)


def test_a_run_that_reads_none_says_how_many_it_leaves_out(config, said):
    for name in ("teach", "probe", "distill"):
        config.phases[name].enabled = False
    job.create_job(config.lock(), None)
    assert any("No phase of this run reads examples without labels, so 10 of image_folder" in line for line in said)


def test_a_folder_of_ones_own_choice_takes_their_place_and_the_log_says_so(config, tmp_path, said):
    (tmp_path / "other").mkdir()
    blocks(99).save(tmp_path / "other" / "99.png")
    config.data.dir = str(tmp_path)
    config.data.options = {"classes": ("a", "b")}
    config.data.extra.update({"source": "image_folder", "dir": str(tmp_path / "other")})
    assert numbers(datasets.load_unlabelled(config)) == {99}
    assert any("its 10 pictures without a label are not read" in line for line in said)


def test_without_comparing_pictures_copies_are_told_by_their_bytes(config, folder, said):
    parts = datasets.load_splits(config)
    scored = folder / parts["test"].keys[0]
    shutil.copyfile(scored, folder / "unlabelled" / "same.png")
    blocks(number(parts["test"].keys[1])).save(folder / "unlabelled" / "other_bytes.bmp")
    config.data.split.compare_copies = False
    parts, extra = datasets.load_data(config)
    kept = held_out.keep_extra_out(config, extra, [HeldOut(config.data, parts)])
    assert {*extra.keys} - {*kept.keys} == {"unlabelled/same.png"}
    assert any("1 of 12 examples" in line and "left out" in line for line in said)


def test_answers_are_asked_for_them_too(config):
    config.data.views = 0
    small = configuration.locked(config, {"data.num_threads": 0})
    names = {name for seen in answers.pictures(small, SIZE) for name in seen.names}
    assert {"unlabelled/40.png", "unlabelled/49.png", "a/0.png"} < names and len(names) == 50
