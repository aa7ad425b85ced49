"""`fer2013.csv`, whose cells are pictures, by itself and with FER+'s votes beside it."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.division.apart import leave_out_copies
from emokd.data.division.duplicates import find_duplicates
from emokd.data.division.splits import split
from emokd.data.pipeline import evaluation_batches
from emokd.data.sources import fer2013, ferplus, manifest
from emokd.data.tables import classes as class_lists
from emokd.errors import InputError

USAGES = ("Training", "Training", "PublicTest", "PrivateTest", "Training", "PrivateTest")
CODES = ("0", "3", "6.0", "", "4", "3")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)


def table(directory, name="fer2013.csv", header=("emotion", "pixels", "Usage"), usages=USAGES, codes=CODES, cells=None):
    directory.mkdir(parents=True, exist_ok=True)
    cells = [" ".join(map(str, face.ravel())) for face in PIXELS] if cells is None else cells
    columns = {"emotion": codes, "pixels": cells, "Usage": usages}
    with open(directory / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(zip(*(columns[column.strip()] for column in header), strict=True))
    return directory


@pytest.mark.parametrize(
    ("name", "header"),
    [("fer2013.csv", ("emotion", "pixels", "Usage")), ("icml_face_data.csv", ("emotion", " Usage", " pixels"))],
)
def test_fer2013(tmp_path, name, header, caplog):
    with caplog.at_level("INFO"):
        examples = sources.load("fer2013", str(table(tmp_path, name, header)), {}, min_side=99)
    assert examples.classes["expression"] == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert examples.columns["expression"].tolist() == [0, 3, 6, -1, 4, 3]
    assert examples.splits.tolist() == ["train", "train", "validation", "test", "train", "test"]
    assert examples.keys[2] == "validation/00002"
    assert examples.face_crop == "box"
    for i, face in enumerate(PIXELS):
        image = examples.inputs["image"](i)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.stack([face] * 3, axis=-1))
    assert "unlabelled: expression 1" in caplog.text
    assert examples.inputs["image"].pixels.nbytes == PIXELS.nbytes
    (batch,) = evaluation_batches(examples, batch_size=6, canvas=48, fit="crop")
    np.testing.assert_array_equal(batch["image"][..., 0], PIXELS)


def test_other_orders_names_and_tables_without_usage(tmp_path):
    table(tmp_path, "own.csv", ("emotion", "pixels"))
    examples = fer2013.load(str(tmp_path), {"table": "own.csv", "order": "affectnet"})
    assert examples.classes["expression"] == class_lists.AFFECTNET[:7]
    names = [class_lists.AFFECTNET[i] if i >= 0 else "" for i in examples.columns["expression"]]
    assert names == ["anger", "happy", "neutral", "", "sad", "happy"]
    assert examples.splits is None
    assert fer2013.load(str(tmp_path / "own.csv"), {}).keys == examples.keys


@pytest.mark.parametrize("column", ["split", "Set"])
def test_usage_under_another_name_is_told(tmp_path, column, caplog):
    table(tmp_path)
    content = (tmp_path / "fer2013.csv").read_text()
    (tmp_path / "fer2013.csv").write_text(content.replace("Usage", column, 1))
    assert fer2013.load(str(tmp_path), {}).splits is None
    assert f"the column '{column}' names splits (test, train, validation)" in caplog.text
    assert "name it 'Usage'" in caplog.text


def test_equal_faces_are_duplicates(tmp_path):
    cells = [" ".join(map(str, PIXELS[i].ravel())) for i in (0, 1, 2, 3, 4, 0)]
    examples = fer2013.load(str(table(tmp_path, cells=cells, codes="030340")), {})
    assert [examples.content(i) == examples.content(0) for i in range(6)] == [True] + [False] * 4 + [True]
    assert split(examples, {"train": 1.0}, 0)["train"].keys == ["train/00001", "train/00004"]


def brighter_and_mirrored():
    """Twelve smooth faces, each again brighter and once more mirrored: [36, 48, 48]."""
    rough = np.random.default_rng(1).integers(20, 200, (12, 6, 6)).astype(np.uint8)
    faces = np.stack([np.asarray(Image.fromarray(face).resize((48, 48), Image.Resampling.BICUBIC)) for face in rough])
    return np.concatenate([faces, np.minimum(faces.astype(int) + 30, 255).astype(np.uint8), faces[:, :, ::-1]])


def test_near_copies_among_the_rows_of_a_table_are_found(tmp_path):
    faces = brighter_and_mirrored()
    cells = [" ".join(map(str, face.ravel())) for face in faces]
    usages = ("Training", "PublicTest", "PrivateTest") * 12
    directory = table(tmp_path / "table", usages=usages, codes="0123456" * 5 + "0", cells=cells)
    votes(directory, [(usage, f"{i}.png", (8, 2) + (0,) * 8) for i, usage in enumerate(usages)])
    copies = {(i, i + 12, i + 24) for i in range(12)}
    for source in (fer2013, ferplus):
        found = find_duplicates(source.load(str(directory), {}))
        assert set(found.near) == copies and found.sets == ()
    (tmp_path / "extra" / "faces").mkdir(parents=True)
    for i in (3, 4, 25):
        Image.fromarray(faces[i]).save(tmp_path / "extra" / "faces" / f"{i}.png")
    extra = sources.load("image_folder", str(tmp_path / "extra"), {}, 32)
    held = fer2013.load(str(directory), {}).select(np.array([3, 13]))  # face 3, and face 1, brighter
    assert leave_out_copies(extra, [held], "config.data.extra", "the test split").keys == ["faces/4.png"]


ZEROS = " ".join(["0"] * 2304)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [ZEROS] * 4 + [ZEROS[:-2]] + [ZEROS]}, r"fer2013\.csv, line 6: .*2303 numbers, not 48 x 48 = 2304"),
        ({"cells": [ZEROS] * 5 + [""]}, r"line 7: .*holds 0 numbers"),
        ({"cells": [ZEROS[:-1] + "256"] + [ZEROS] * 5}, r"line 2: .*'256', no whole number from 0 to 255"),
        ({"cells": [ZEROS[:-1] + "1_0"] + [ZEROS] * 5}, r"line 2: .*'1_0', no whole number"),
        ({"codes": ["7"] + ["0"] * 5}, r"line 2: there is no emotion code 7\. The codes are 0 angry, .*6 neutral"),
        ({"usages": ["Train"] * 5 + ["Other"]}, r"line 7: there is no usage 'Other'|line 2: there is no usage"),
        ({"header": ("pixels", "Usage")}, r"line 1: there is no column 'emotion'"),
        ({"header": ("emotion", "Usage")}, r"line 1: there is no column 'pixels'"),
    ],
)
def test_refusals(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        fer2013.load(str(table(tmp_path, **changes)), {})


def test_without_a_table_and_through_a_manifest(tmp_path):
    with pytest.raises(InputError, match=r"no table fer2013\.csv or icml_face_data\.csv\. Put fer2013\.csv there"):
        fer2013.load(str(tmp_path), {})
    (tmp_path / "fer2013.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"Unpack fer2013\.tar\.gz there"):
        fer2013.load(str(tmp_path), {})
    table(tmp_path)
    with pytest.raises(InputError, match=r"line 1: .*'pixels'.*config\.data\.source to 'fer2013'"):
        manifest.load(str(tmp_path), {})


VOTES = [
    ("Training", "fer0000000.png", (0, 8, 2, 0, 0, 0, 0, 0, 0, 0)),
    ("Training", "", (0,) * 9 + (10,)),
    ("PublicTest", "fer0028638.png", (0, 0, 0, 0, 0, 0, 2, 8, 0, 0)),
    ("PrivateTest", "fer0032220.png", (0, 0, 0, 6, 1, 1, 1, 1, 0, 0)),
    ("Training", "fer0000002.png", (8, 2, 0, 0, 0, 0, 0, 0, 0, 0)),
    ("PrivateTest", "fer0032222.png", (5, 5, 0, 0, 0, 0, 0, 0, 0, 0)),
]


def votes(directory, rows=VOTES):
    header = "Usage,Image name," + ",".join(ferplus.FERPLUS) + ",unknown,NF\n"
    text = header + "".join(f"{usage},{name},{','.join(map(str, own))}\n" for usage, name, own in rows)
    (directory / "fer2013new.csv").write_text(text)


def test_ferplus_by_row_order_equals_ferplus_of_unpacked_pictures(tmp_path):
    packed = table(tmp_path / "packed")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for directory in (packed, unpacked):
        votes(directory)
    for face, (usage, name, _) in zip(PIXELS, VOTES, strict=True):
        if name:
            buffer = io.BytesIO()
            Image.fromarray(face).save(buffer, "PNG")
            path = unpacked / ferplus.FOLDERS[usage] / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(buffer.getvalue())
    for options in ({}, {"protocol": "cross_entropy", "order": "affectnet"}):
        one, other = (ferplus.load(str(directory), options) for directory in (packed, unpacked))
        assert one.keys == other.keys
        assert one.classes == other.classes
        assert one.splits.tolist() == other.splits.tolist()
        assert one.face_crop == other.face_crop
        for column in other.columns:
            np.testing.assert_array_equal(one.columns[column], other.columns[column])
        for i in range(len(one)):
            np.testing.assert_array_equal(one.inputs["image"](i), other.inputs["image"](i))


def test_ferplus_refuses_tables_that_do_not_belong_together(tmp_path):
    directory = table(tmp_path)
    votes(directory, VOTES[:-1])
    with pytest.raises(InputError, match=r"fer2013\.csv has 6 rows, but .*fer2013new\.csv has 5.*download both"):
        ferplus.load(str(directory), {})
    votes(directory, [VOTES[0], VOTES[1], VOTES[3], VOTES[2], *VOTES[4:]])
    with pytest.raises(InputError, match=r"fer2013\.csv, line 4: .*'PublicTest', but 'PrivateTest' in .*line 4"):
        ferplus.load(str(directory), {})
    (directory / "fer2013.csv").unlink()
    votes(directory)
    with pytest.raises(InputError, match=r"line 2: FER2013Train/fer0000000\.png is not in .*or put fer2013\.csv or"):
        ferplus.load(str(directory), {})


def test_ferplus_refuses_absurd_votes(tmp_path):
    directory = table(tmp_path)
    votes(directory, [("Training", "a.png", ("1e308",) * 2 + (0,) * 8), *VOTES[1:]])
    with pytest.raises(InputError, match=r"line 2: column 'neutral' holds 1e308, outside"):
        ferplus.load(str(directory), {})


def test_a_usage_in_another_letter_case_is_not_passed_over(tmp_path):
    write = table(tmp_path)
    text = (write / "fer2013.csv").read_text()
    (write / "fer2013.csv").write_text(text.replace("Usage", "usage", 1))
    with pytest.raises(InputError, match=r"line 1: the column 'usage' would not be read\. Write it 'Usage'"):
        fer2013.load(str(write), {})
