"""What is found in sets whose faults were put there by hand."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.audit import findings, published
from emokd.data.audit.sheet import ACROSS, HEADING, SIDE, contact_sheet
from emokd.data.audit.tables import count_table
from emokd.data.division.duplicates import find_duplicates
from emokd.data.examples import Examples
from emokd.data.sources import fer2013


def folder(path, table, faulty=()):
    """A manifest's folder: coloured noise for each row, no two alike."""
    rows = [line.split(",") for line in table.split()]
    for i, (name, *_) in enumerate(rows[1:]):
        noise = np.random.default_rng(i).integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).save(path / name)
        if name in faulty:
            (path / name).write_bytes((path / name).read_bytes()[:60])
    (path / "labels.csv").write_text("\n".join(",".join(row) for row in rows))
    return path


TABLE = """path,label,split,group
a.png,happy,train,ann
b.png,happy,train,bob
c.png,sad,train,bob
d.png,sad,test,ann
e.png,happy,test,eve
"""


@pytest.fixture
def examples(tmp_path):
    folder(tmp_path, TABLE, ["b.png"])
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes())
    Image.open(tmp_path / "c.png").save(tmp_path / "d.png", compress_level=0)
    return sources.load("manifest", str(tmp_path), {"classes": ["happy", "sad", "calm"]})


def test_every_fault_is_found_once(examples):
    parts = {"train": np.array([0, 1, 2]), "test": np.array([3, 4])}
    found = findings.find_all("manifest", examples, parts, find_duplicates(examples))
    for message in (
        "1 of 5 examples cannot be read: ",
        "2 sets of equal examples (2 examples of them in other bytes, equal in pixels), 4 examples: a.png = e.png, c",
        "1 of 3 groups (subjects) are in several splits of this configuration: ann (test and train).",
        "1 of 3 groups (subjects) are in several splits that the set prescribes: ann (test and train).",
        "2 of 2 sets of copies are in several splits of this configuration: ",
        "2 of 2 sets of copies are in several splits that the set prescribes: ",
        "No example has the class calm.",
    ):
        (line,) = [line for line in found if line.startswith(message)]
    assert len(found) == 7 and "b.png" in found[0]


def test_the_table_counts_by_class_and_split(examples):
    table = count_table("manifest", examples, {"train": np.array([0, 2]), "test": np.array([3, 4])})
    assert [line.split() for line in table.splitlines()] == [
        ["class", "train", "test", "left", "out", "all"],
        ["happy", "1", "1", "1", "3"],
        ["sad", "1", "1", "0", "2"],
        ["calm", "0", "0", "0", "0"],
        ["all", "2", "2", "1", "5"],
    ]


def test_the_sheet_has_a_row_for_each_class_that_has_examples(examples):
    sheet = contact_sheet(examples)
    assert sheet.shape == (2 * (SIDE + HEADING), ACROSS * SIDE, 3)
    squares = sheet[HEADING : SIDE + HEADING].reshape(SIDE, ACROSS, SIDE, 3)
    filled = [not (squares[:, i] == 255).all() for i in range(ACROSS)]
    assert filled == [True] * 3 + [False] * (ACROSS - 3)


def labelled(names, codes, **columns):
    codes = np.array(codes, np.int32)
    keys = [str(i) for i in range(len(codes))]
    return Examples("set", keys, {"expression": codes, **columns}, {"expression": names}, {}, keys.__getitem__)


def test_classes_in_the_wrong_order_contradict_their_valence():
    codes = np.repeat([0, 1], 20)
    affect = np.stack([np.where(codes == 0, -0.6, 0.6), np.zeros(40)], axis=1).astype(np.float32)
    (told,) = findings.labels(labelled(("happy", "sad"), codes, valence_arousal=affect))
    assert told.startswith("Classes contradict") and "'happy' has a mean valence of -0.60" in told
    assert findings.labels(labelled(("sad", "happy"), codes, valence_arousal=affect)) == []


def test_published_numbers_are_compared_by_class():
    """They add up to the papers' totals: 23,308 of FI, 12,271 and 3,068 of RAF-DB, 287,651 of AffectNet."""
    totals = {
        name: [sum(counts.values()) for counts in splits.values()] for name, splits in published.PUBLISHED.items()
    }
    assert totals["fi"] == [23308] and totals["rafdb"] == [12271, 3068] and totals["fer2013"] == [28709, 3589, 3589]
    assert totals["affectnet"] == [287651, 4000] and totals["ravdess"] == [1440] and totals["emotion6"] == [1980]
    emotions = ("sadness", "anger", "disgust", "fear", "joy", "surprise")
    assert published.differences("emotion6", labelled(emotions, np.repeat(range(6), 330))) == []
    assert published.differences("emotion6", labelled(emotions, np.repeat(range(6), 330)[1:])) == [
        "all, sadness: 329 examples, 330 are published"
    ]
    assert published.differences("image_folder", labelled(("a",), [0])) == []
    assert published.differences("oasis", labelled(("a",), [0])) == ["1 examples, 900 are published"]


def test_published_numbers_are_compared_under_every_name_that_a_source_gives_its_classes():
    for names in fer2013.ORDERS.values():
        ids = {name: i for i, name in enumerate(names)}
        counts = published.PUBLISHED["fer2013"]
        codes, splits = [], []
        for part, by_name in counts.items():
            for name, count in by_name.items():
                codes += [ids["anger" if name == "angry" and name not in ids else name]] * count
                splits += [part] * count
        examples = dataclasses.replace(labelled(tuple(names), codes), splits=np.array(splits))
        assert published.differences("fer2013", examples) == []
        first = "angry" if "angry" in ids else "anger"
        assert published.published_total("fer2013", first) == 3995 + 467 + 491
