"""A folder `unlabelled` beside class folders: no class and in no split, and read for its pictures alone."""

import zipfile

import numpy as np
import pytest
from absl import logging
from PIL import Image

from emokd.data import sources
from emokd.errors import InputError


def write(root, names, zipped=False):
    """One picture per name, each of another shade, in a folder or an archive."""
    for shade, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(root / name)
    if zipped:
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for name in names:
                archive.write(root / name, name)
    return str(root.with_suffix(".zip") if zipped else root)


@pytest.fixture
def said(monkeypatch):
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args: lines.append(text % args))
    return lines


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("folder", ["unlabelled", "Unlabeled", "UNLABELLED"])
def test_its_pictures_are_of_no_class_and_are_read_alone(tmp_path, folder, zipped, said):
    place = write(tmp_path / "mine", ["sad/1.png", f"{folder}/2.png", "calm/3.png", f"{folder}/a/sad/4.png"], zipped)
    labelled = sources.load("image_folder", place, {})
    assert labelled.classes == {"expression": ("calm", "sad")} and labelled.keys == ["calm/3.png", "sad/1.png"]
    assert labelled.splits is None
    [line] = said
    assert "2 pictures" in line and "have no label" in line and "in no split" in line
    others = sources.load_unlabelled("image_folder", place, {})
    assert others.keys == [f"{folder}/2.png", f"{folder}/a/sad/4.png"] and not others.columns and not others.classes
    assert [int(others.inputs["image"](i)[0, 0, 0]) for i in range(2)] == [1, 3]


def test_beside_and_inside_the_training_split_but_not_in_those_that_are_scored(tmp_path, said):
    names = ["train/sad/1.png", "train/calm/2.png", "test/sad/3.png", "test/calm/4.png"]
    more = ["unlabelled/5.png", "train/unlabelled/6.png", "test/unlabelled/7.png", "val/unlabelled/8.png"]
    place = write(tmp_path, [*names, *more, "val/sad/9.png"])
    labelled = sources.load("image_folder", place, {})
    assert sorted(labelled.keys) == sorted([*names, "val/sad/9.png"])
    assert set(labelled.splits) == {"train", "validation", "test"} and labelled.classes["expression"] == ("calm", "sad")
    assert sources.load_unlabelled("image_folder", place, {}).keys == ["train/unlabelled/6.png", "unlabelled/5.png"]
    [line] = [line for line in said if "scored" in line]
    assert "2 pictures" in line and "test/unlabelled/7.png, val/unlabelled/8.png" in line
    assert not any("no pictures of a class" in line for line in said)


def test_a_class_list_that_names_it_makes_it_a_class(tmp_path):
    place = write(tmp_path, ["sad/1.png", "unlabelled/2.png"])
    options = {"classes": ("unlabelled", "sad")}
    labelled = sources.load("image_folder", place, options)
    assert labelled.classes["expression"] == ("unlabelled", "sad")
    np.testing.assert_array_equal(labelled.columns["expression"], [1, 0])
    assert sources.load_unlabelled("image_folder", place, options) is None


def test_there_need_not_be_one_and_there_must_be_classes(tmp_path):
    place = write(tmp_path / "with", ["sad/1.png"])
    assert sources.load_unlabelled("image_folder", place, {}) is None
    (tmp_path / "with" / "unlabelled").mkdir()
    assert sources.load("image_folder", place, {}).classes["expression"] == ("sad",)
    assert sources.load_unlabelled("image_folder", place, {}) is None
    assert sources.load_unlabelled("painter", None, {}) is None
    with pytest.raises(InputError, match="has no class folders"):
        sources.load("image_folder", write(tmp_path / "without", ["unlabelled/1.png"]), {})


def test_pictures_that_are_wanted_without_labels_include_them(tmp_path):
    place = write(tmp_path, ["sad/1.png", "unlabelled/2.png", "calm/3.png", "top.png"])
    found = sources.load("image_folder", place, {}, targets=False)
    assert found.keys == ["calm/3.png", "sad/1.png", "unlabelled/2.png"] and not found.columns


def test_jpegs_are_decoded_at_reduced_size(tmp_path):
    (tmp_path / "unlabelled").mkdir()
    Image.new("RGB", (320, 160)).save(tmp_path / "unlabelled" / "1.jpg")
    found = sources.load_unlabelled("image_folder", str(tmp_path), {}, min_side=40)
    assert found.inputs["image"](0).shape == (40, 80, 3)
