"""Prepared sets of TensorFlow Datasets as a source: the same examples as what they were prepared from."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.sources import tfds as tfds_source
from emokd.errors import InputError

COUNTS = {"size": 24, "train": 6, "validation": 3, "test": 2, "seed": 6}
NAMED = {"label": "expression", "valence_arousal": "valence_arousal", "id": "id"}

# In a process of its own, where nothing else can have imported TensorFlow, or pytest have changed warnings.
PREPARE = f"""
import sys
from emokd.data.tfds import painted_faces, pictures
for builder in (
    painted_faces.Builder(
        data_dir=sys.argv[1], file_format="array_record",
        config=painted_faces.PaintedFacesConfig(name="tiny", **{COUNTS}),
    ),
    pictures.Builder(
        data_dir=sys.argv[1], file_format="array_record",
        config=pictures.PicturesConfig(name="mine", source="manifest", directory=sys.argv[2]),
    ),
):
    builder.download_and_prepare()
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    rows = ["path,label,valence,arousal,group"]
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (9 + i, 12, 3), np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'happy sad'.split()[i % 2]},{i / 4},{'' if i == 2 else -0.5},person{i // 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def prepared(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    done = subprocess.run([sys.executable, "-c", PREPARE, str(folder), str(manifest)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(folder)


def assert_same(found, expected):
    """The same examples in any order."""
    rows = {key: i for i, key in enumerate(expected.keys)}
    order = [rows[key] for key in found.keys]
    assert sorted(order) == list(range(len(expected))) and found.classes == expected.classes
    assert found.columns.keys() == expected.columns.keys()
    for name, values in found.columns.items():
        np.testing.assert_allclose(values, expected.columns[name][order], atol=1e-6)
    for i, j in enumerate(order):
        np.testing.assert_array_equal(found.inputs["image"](i), expected.inputs["image"](j))
    for mine, other in ((found.splits, expected.splits), (found.groups, expected.groups)):
        assert (mine is None) == (other is None)
        assert mine is None or mine.tolist() == other[order].tolist()


def test_painted_faces_are_read_as_they_were_painted(prepared, caplog):
    options = {**NAMED, "tasks": ("identity", "scene")}
    expected = sources.load("painter", None, COUNTS)
    found = sources.load("tfds:painted_faces/tiny", prepared, options)
    names = expected.classes["identity"]
    assert found.groups is None and "'identity' may name people" not in caplog.text  # it is one of the tasks
    sources.load("tfds:painted_faces/tiny:1.0.0", prepared, NAMED)
    assert ": 'identity' may name people or recordings, but examples are kept together by none" in caplog.text
    caplog.clear()
    grouped = sources.load("tfds:painted_faces/tiny:1.0.0", prepared, {**options, "group": "identity"})
    assert [names[int(group)] for group in grouped.groups] == [names[i] for i in grouped.columns["identity"]]
    assert_same(found, dataclasses.replace(expected, groups=None))
    assert [found.content(0) == found.content(i) for i in range(len(found))] == [True] + [False] * 10


def test_a_manifest_is_prepared_and_read_as_it_was(prepared, manifest):
    """One split prescribes nothing; an unlabelled value and a group come through."""
    expected = sources.load("manifest", str(manifest), {})
    assert np.isnan(expected.columns["valence_arousal"]).any()
    options = {"valence_arousal": "valence_arousal", "id": "id", "group": "group"}
    assert_same(sources.load("tfds:pictures/mine", prepared, options), expected)


def test_another_scale_becomes_ours(prepared):
    ours, wide = (
        sources.load("tfds:painted_faces/tiny", prepared, {**NAMED, **more}).columns["valence_arousal"]
        for more in ({}, {"affect_range": (-1, 3)})
    )
    np.testing.assert_allclose(wide, (ours + 1) / 2 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "painted_faces",
            {},
            "with the configurations tiny: name one, as in config.data.source='tfds:painted_faces/tiny'",
        ),
        (
            "painted_faces/48",
            {},
            "import emokd.data.tfds.painted_faces; tfds.builder('painted_faces/48', data_dir=FOLDER",
        ),
        ("nothing", {}, "tfds:nothing is not prepared in "),
        ("painted_faces/tiny:9.9.9", {}, "is not prepared in "),
        ("painted_faces/tiny", {}, "has 3 features of the kind ClassLabel"),
        ("painted_faces/tiny", {"label": "expresion"}, "Did you mean 'expression'?"),
        ("painted_faces/tiny", {"label": "id"}, "the feature 'id' is a Text, no ClassLabel"),
        ("painted_faces/tiny", {"label": "scene", "valence": "scene"}, "valence and arousal both"),
        ("painted_faces/tiny", {**NAMED, "affect_range": (0, 1)}, "lies outside 0 to 1"),
        ("painted_faces/tiny", {**NAMED, "affect_range": (1,)}, "affect_range is (1,). Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "affect_range": (1, 2, 3)}, "affect_range is (1, 2, 3). Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "affect_range": "1,9"}, "affect_range is '1,9'. Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "affect_range": "19"}, "affect_range is '19'. Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "affect_range": (-1, float("inf"))}, "affect_range is (-1, inf). Give the"),
        ("painted_faces/tiny", {**NAMED, "affect_range": (1, -1)}, "affect_range is (1, -1). Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "affect_range": 5}, "affect_range is 5. Give the two ends"),
        ("painted_faces/tiny", {**NAMED, "id": "scene"}, "is not unique"),
        ("painted_faces/tiny", {**NAMED, "splits": ("dev",)}, "has no split 'dev'"),
        ("painted_faces/tiny", {"lable": "scene"}, "has no option 'lable'. Did you mean 'label'?"),
    ],
)
def test_what_is_wrong_is_said(prepared, name, options, message):
    with pytest.raises(InputError) as refused:
        sources.load(f"tfds:{name}", prepared, options)
    assert message in str(refused.value)


def test_a_set_of_tensorflows_own_format_is_refused_with_the_command(prepared, tmp_path):
    version = pathlib.Path(prepared) / "painted_faces/tiny/1.0.0"
    copy = tmp_path / "painted_faces/tiny/1.0.0"
    copy.mkdir(parents=True)
    for file in ("dataset_info.json", "features.json"):
        (copy / file).write_text((version / file).read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match=r"is prepared as tfrecord.*file_format='array_record'"):
        sources.load("tfds:painted_faces/tiny", str(tmp_path), {})


def test_one_set_whatever_its_version():
    assert sources.family("tfds:a/b:1.0.0") == sources.family("tfds:a/b") != sources.family("tfds:a")


@pytest.mark.parametrize("missing", [b"", " ", b"nan"])
def test_a_record_without_a_group_is_refused(missing):
    rows = [{"person": b"one"}, {"person": missing}]
    with pytest.raises(InputError, match=r"'person' is empty in 1 records, first in record 1"):
        tfds_source._groups("tfds:faces", rows, "person")
