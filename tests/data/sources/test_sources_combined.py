"""Several sets as one: classes by name, what is unlabelled, splits, duplicates between sets, and bad input."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.division.duplicates import find_duplicates
from emokd.data.division.splits import split
from emokd.data.pipeline import evaluation_batches
from emokd.errors import InputError

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade % 256, shade // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, header, rows, shades=None):
    """A manifest whose pictures have the given shades; rows are the cells after the path."""
    folder.mkdir(parents=True)
    for i in range(len(rows)):
        (folder / f"{i}.png").write_bytes(picture(i if shades is None else shades[i]))
    lines = [f"path,{header}", *(f"{i}.png,{row}" for i, row in enumerate(rows))]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"source": "manifest", "dir": str(folder), "name": folder.name}


def load(*sections, min_side=0):
    return sources.load("combined", "", {"sources": sections}, min_side)


@pytest.fixture
def faces(tmp_path):
    """Classes alone, with prescribed splits and subjects."""
    return write(tmp_path / "faces", "label,split,group", ["c,train,p0", "a,train,p1", "b,test,p0"], [0, 1, 2])


@pytest.fixture
def scenes(tmp_path):
    """Classes in another order and number, and valence and arousal."""
    return write(tmp_path / "scenes", "label,valence,arousal", ["b,0.5,-0.5", "d,1,0"], [3, 4])


@pytest.fixture
def votes(tmp_path):
    """Votes over classes of which the third has none of its own."""
    section = write(tmp_path / "votes", "b,z", ["3,1", "0,0"], [5, 6])
    return {**section, "options": {"classes": ("b", "z")}}


@pytest.fixture
def affect(tmp_path):
    """Valence and arousal alone."""
    return write(tmp_path / "affect", "valence,arousal", ["-1,1"], [7])


def test_classes_are_matched_by_name_and_the_rest_is_unlabelled(faces, scenes, affect):
    examples = load(faces, scenes, affect)
    assert examples.classes == {"expression": ("a", "b", "c", "d")}
    assert examples.keys == [
        "faces/0.png", "faces/1.png", "faces/2.png", "scenes/0.png", "scenes/1.png", "affect/0.png",
    ]  # fmt: skip
    assert examples.columns["expression"].tolist() == [2, 0, 1, 1, 3, -1]
    assert examples.columns["expression"].dtype == np.int32
    nan = np.nan
    np.testing.assert_array_equal(
        examples.columns["valence_arousal"], np.array([[nan, nan]] * 3 + [[0.5, -0.5], [1, 0], [-1, 1]], np.float32)
    )
    # A union begins with the first set's order.
    assert load(scenes, faces).classes == {"expression": ("b", "d", "a", "c")}
    assert load(scenes, faces).columns["expression"].tolist() == [0, 1, 3, 2, 0]


def test_labels_become_votes_where_one_set_has_votes(faces, votes, affect):
    examples = load(faces, votes, affect)
    assert examples.classes == {"expression": ("a", "b", "c", "z")}
    assert "expression" not in examples.columns
    expected = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0.75, 0, 0.25], [0] * 4, [0] * 4]
    np.testing.assert_array_equal(examples.columns["votes"], np.array(expected, np.float32))


def test_pictures_follow_their_keys_into_batches(faces, scenes, affect):
    examples = load(faces, scenes, affect).select(np.array([5, 0, 3]))
    batch = next(evaluation_batches(examples, batch_size=4, canvas=3, fit="squash", num_threads=0))
    assert batch["image"][:, 0, 0, 0].tolist() == [7, 0, 3, 0]
    assert batch["expression"].tolist() == [-1, 2, 1, -1]
    assert np.isnan(batch["valence_arousal"]).all(1).tolist() == [False, True, False, True]
    assert batch["mask"].tolist() == [True, True, True, False]


def test_subjects_are_their_own_sets_and_others_are_alone(faces, scenes):
    examples = load(faces, {**faces, "name": "again"}, scenes)
    assert examples.groups.tolist() == [
        "faces/p0", "faces/p1", "faces/p0", "again/p0", "again/p1", "again/p0", "scenes/0.png", "scenes/1.png",
    ]  # fmt: skip
    assert load(scenes, {**scenes, "name": "again"}).groups is None


def test_prescribed_splits_stay_and_other_sets_are_divided(tmp_path):
    named = [f"{'ab'[i % 2]},{'train' if i < 20 else 'test'}" for i in range(30)]
    first = write(tmp_path / "first", "label,split", named, range(30))
    second = write(tmp_path / "second", "label", ["ab"[i % 2] for i in range(100)], range(100, 200))
    parts = split(load(first, second), FRACTIONS, 0)
    home = {key: name for name, part in parts.items() for key in part.keys}
    assert len(home) == 130
    assert {home[f"first/{i}.png"] for i in range(20)} == {"train", "validation"}
    assert {home[f"first/{i}.png"] for i in range(20, 30)} == {"test"}
    counts = {name: sum(home[f"second/{i}.png"] == name for i in range(100)) for name in FRACTIONS}
    assert counts == {"train": 60, "validation": 20, "test": 20}
    both = load(first, {**first, "name": "again"})
    assert set(both.splits.tolist()) == {"train", "test"}
    assert load(second, {**second, "name": "again"}).splits is None


@pytest.mark.parametrize("zipped", [False, True])
def test_duplicates_between_sets_are_found_and_do_not_leak(tmp_path, zipped):
    first = write(tmp_path / "first", "label,split", ["a,train", "a,test", "b,train", "b,test"], [1, 2, 3, 4])
    second = write(tmp_path / "second", "valence,arousal", ["0,0"] * 20, [2, 9, *range(100, 118)])
    files = [tmp_path / "second" / f"{i}.png" for i in range(20)]
    assert len({file.stat().st_size for file in files}) < 20  # sizes agree between pictures whose bytes do not
    if zipped:  # a set's own texts are then made from other facts than a folder's
        with zipfile.ZipFile(tmp_path / "second" / "images.zip", "w") as archive:
            for file in files:
                archive.write(file, file.name)
                file.unlink()
    examples = load(first, second)
    assert find_duplicates(examples).sets == ((1, 4),)
    parts = split(examples, {"train": 0.8, "test": 0.2}, 0)
    assert {"first/1.png", "second/0.png"} <= set(parts["test"].keys)


def test_a_picture_that_cannot_be_decoded_does_not_stop_the_load(faces, scenes, tmp_path):
    size = (tmp_path / "faces" / "0.png").stat().st_size
    (tmp_path / "scenes" / "0.png").write_bytes(b"x" * size)
    assert find_duplicates(load(faces, scenes)).sets == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "must be a tuple of two or more sets"),
        ({"sources": ("ferplus", "fi")}, "must be a tuple of two or more sets"),
        ({"sources": ({"source": "manifest"}, {"dir": "x"})}, r"sources\[1\].source is None; name a single data set"),
        ({"sources": ({"source": "combined"}, {"source": "fi"})}, r"sources\[0\].source is 'combined'"),
        ({"sources": ({"source": "fi", "dri": "x"}, {"source": "fi"})}, r"sources\[0\] has the key 'dri'.*mean 'dir'"),
        ({"source": ()}, "combined has no option 'source'. Did you mean 'sources'"),
        ({"sources": ({"source": "paintr"}, {"source": "fi"})}, r"sources\[0\] \(paintr\): .*Did you mean 'painter'"),
    ],
)
def test_options_that_make_no_sense(changes, message):
    with pytest.raises(InputError, match=message):
        sources.load("combined", "", changes)


def test_sets_that_cannot_be_combined(faces, scenes, affect, tmp_path):
    with pytest.raises(InputError, match=r"sources\[1\]: there is a set 'faces' before it. Give it another 'name'"):
        load(faces, faces)
    with pytest.raises(InputError, match=r"sources\[1\] \(scenes\): .* has no option 'clases'"):
        load(faces, {**scenes, "options": {"clases": ("b",)}})
    with pytest.raises(InputError, match="a combined set has no folder"):
        sources.load("combined", str(tmp_path), {"sources": (faces, scenes)})
    heard = {"source": "painter", "options": {"size": 16, "train": 2, "inputs": ("image", "audio")}}
    with pytest.raises(InputError, match=r"\(painter\) has the inputs image, audio; only sets of pictures"):
        load(faces, heard)
    photographs = tmp_path / "oasis"
    photographs.mkdir()
    for i in range(3):
        (photographs / f"{i}.png").write_bytes(picture(i))
    table = "path,valence_mean,arousal_mean\n0.png,1,4\n1.png,4,4\n2.png,7,4\n"
    (photographs / "labels.csv").write_text(table)
    section = {"source": "oasis", "dir": str(photographs)}
    assert load(faces, section).columns["valence_arousal"][3:, 0].tolist() == [-1, 0, 1]
    with pytest.raises(InputError, match=r"\(oasis\): with these options its targets are fitted on the training split"):
        load(faces, {**section, "options": {"task": "terciles"}})
