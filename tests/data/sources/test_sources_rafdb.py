"""RAF-DB's basic set, on generated trees in its layout."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.division.splits import split
from emokd.data.sources import rafdb
from emokd.errors import InputError

LINES = [f"train_{i:05d}.jpg {code}" for i, code in enumerate((5, 1, 7, 2, 3, 4, 6), 1)] + [
    "test_0001.jpg 4",
    "test_0002.jpg 7",
]
NAMED = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "anger", 7: "neutral"}


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (10, 10), (shade, 0, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(directory, lines=LINES, zipped=False):
    (directory / "EmoLabel").mkdir(parents=True, exist_ok=True)
    (directory / "EmoLabel/list_patition_label.txt").write_text("\n".join(lines) + "\n")
    names = [line.split()[0].replace(".jpg", "_aligned.jpg") for line in LINES]
    folder = directory / "Image/aligned"
    folder.parent.mkdir(exist_ok=True)
    if zipped:
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for shade, name in enumerate(names):
                archive.writestr(f"aligned/{name}", picture(shade))
    else:
        folder.mkdir(exist_ok=True)
        for shade, name in enumerate(names):
            (folder / name).write_bytes(picture(shade))
    return str(directory)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("order", "classes"),
    [
        ("rafdb", ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")),
        ("affectnet", ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")),
    ],
)
def test_rafdb(tmp_path, order, classes, zipped):
    examples = sources.load("rafdb", tree(tmp_path, zipped=zipped), {"order": order})
    assert examples.classes == {"expression": classes}
    assert examples.keys[0] == "train_00001_aligned.jpg"
    assert [classes[i] for i in examples.columns["expression"]] == [NAMED[int(line.split()[1])] for line in LINES]
    assert examples.columns["expression"].dtype == np.int32
    assert "valence_arousal" not in examples.columns
    assert examples.splits.tolist() == ["train"] * 7 + ["test"] * 2
    assert examples.inputs["image"](8)[0, 0].tolist() == [8, 0, 7]


def test_the_default_order_is_that_of_the_codes(tmp_path):
    assert rafdb.load(tree(tmp_path), {}).columns["expression"].tolist() == [4, 0, 6, 1, 2, 3, 5, 3, 6]


def test_splits(tmp_path):
    parts = split(rafdb.load(tree(tmp_path), {}), {"train": 1.0}, 0)
    assert parts["test"].keys == ["test_0001_aligned.jpg", "test_0002_aligned.jpg"]
    assert len(parts["train"]) == 7


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_00008.jpg 8", r"list_patition_label\.txt, line 10: there is no expression code 8.*7 neutral"),
        ("train_00008.jpg 0", "line 10: there is no expression code 0"),
        ("train_00008.jpg x", "line 10: column 'code' holds 'x'"),
        ("train_00002.jpg", "line 10: 'train_00002.jpg' is not a name and a code"),
        ("train_00002.jpg 1", r"line 10: 'train_00002_aligned\.jpg' is also on line 2"),
        ("train_00099.jpg 1", r"line 10: 'train_00099_aligned\.jpg' is not in .*aligned"),
        ("valid_00001.jpg 1", r"line 10: 'valid_00001_aligned\.jpg' begins with neither train_ nor test_"),
    ],
)
def test_refused_lines(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        rafdb.load(tree(tmp_path, [*LINES, line]), {})


def test_refusals(tmp_path):
    directory = tree(tmp_path)
    with pytest.raises(InputError, match=r"options\.order is 'afectnet'.*mean 'affectnet'"):
        rafdb.load(directory, {"order": "afectnet"})
    with pytest.raises(InputError, match=r"rafdb has no option 'classes'"):
        rafdb.load(directory, {"classes": "a,b"})
    table = tmp_path / "EmoLabel/list_patition_label.txt"
    table.write_bytes(b"tr\xe4in_1.jpg 1\n")
    with pytest.raises(InputError, match=r"list_patition_label\.txt is not UTF-8"):
        rafdb.load(directory, {})
    table.write_text("\n")
    with pytest.raises(InputError, match=r"list_patition_label\.txt is empty"):
        rafdb.load(directory, {})
    table.unlink()
    with pytest.raises(InputError, match=r"list_patition_label\.txt does not exist.*EmoLabel and Image"):
        rafdb.load(directory, {})
