import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from same_interface import assert_described, interface

from emokd.data import sources
from emokd.data.division.splits import split
from emokd.data.sources import diffusionfer, emoset, emotion6, ferplus, fi, oasis
from emokd.data.tables import classes as class_lists
from emokd.errors import InputError


def picture(shade=0, size=(4, 3)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, names, zipped=False):
    """Writes one distinct picture per name, in a folder or an archive."""
    if zipped:
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(name, picture(i))
        return
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(i))


@pytest.fixture(params=[False, True], ids=["folder", "zip"])
def zipped(request):
    return request.param


def table(directory, text, name="labels.csv"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)


# FER+


def faces(directory, rows, zipped=False, skip=()):
    """Writes an official layout from (usage, name, ten votes)."""
    header = "Usage,Image name," + ",".join(ferplus.FERPLUS) + ",unknown,NF\n"
    table(directory, header + "".join(f"{u},{n},{','.join(map(str, v))}\n" for u, n, v in rows), "fer2013new.csv")
    names = dict.fromkeys(
        f"{ferplus.FOLDERS[u]}/{n}" for u, n, _ in rows if n and n not in skip and u in ferplus.FOLDERS
    )
    write(directory / "images", names, zipped)


CLEAR = (0, 8, 2, 0, 0, 0, 0, 0, 0, 0)
HALF = (5, 5, 0, 0, 0, 0, 0, 0, 0, 0)
ROWS = [
    ("Training", "1.png", CLEAR),
    ("Training", "2.png", HALF),
    ("Training", "", (0,) * 9 + (10,)),
    ("Training", "3.png", (0, 0, 0, 0, 0, 0, 0, 0, 4, 6)),
    ("PublicTest", "4.png", (0, 0, 0, 0, 0, 0, 2, 8, 0, 0)),
    ("PrivateTest", "5.png", (0, 0, 0, 6, 1, 1, 1, 1, 0, 0)),
    ("PrivateTest", "6.png", HALF),
]


def test_ferplus_majority(tmp_path, zipped):
    calm = (8, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    faces(tmp_path, [*ROWS, ("Training", "7.png", calm), ("PrivateTest", "8.png", calm)], zipped)
    examples = ferplus.load(str(tmp_path), {})
    assert examples.keys == [f"FER2013{name}.png" for name in ("Train/1", "Valid/4", "Test/5", "Train/7", "Test/8")]
    assert examples.classes["expression"] == class_lists.FERPLUS
    names = [class_lists.FERPLUS[i] for i in examples.columns["expression"]]
    assert names == ["happiness", "contempt", "sadness", "neutral", "neutral"]
    assert {name: len(part) for name, part in split(examples, {"train": 1.0}, 0).items()} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }


def test_ferplus_distributions_train_and_majorities_test(tmp_path):
    faces(tmp_path, ROWS)
    examples = ferplus.load(str(tmp_path), {"protocol": "cross_entropy", "order": "affectnet"})
    assert examples.keys == ["FER2013Train/1.png", "FER2013Train/2.png", "FER2013Valid/4.png", "FER2013Test/5.png"]
    names = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    assert examples.classes["expression"] == names
    rows = [dict(zip(names, row, strict=True)) for row in examples.columns["votes"]]
    assert rows[0]["happy"] == 1  # 8 of 10 cover three quarters
    assert rows[1]["neutral"] == rows[1]["happy"] == 0.5
    assert rows[2]["contempt"] == 1
    assert rows[3]["sad"] == 1
    assert examples.columns["votes"].dtype == np.float32


@pytest.mark.parametrize(
    ("votes", "majority", "distribution"),
    [
        ((6, 4, 0, 0, 0, 0, 0, 0, 0, 0), {0: 1}, {0: 0.6, 1: 0.4}),
        ((4, 3, 3, 0, 0, 0, 0, 0, 0, 0), None, {0: 0.4, 1: 0.3, 2: 0.3}),
        ((5, 1, 1, 1, 1, 1, 0, 0, 0, 0), {0: 1}, {0: 1}),  # single votes are noise
        ((4, 2, 2, 2, 0, 0, 0, 0, 0, 0), None, None),  # four labels share the votes
        ((2, 2, 2, 2, 2, 0, 0, 0, 0, 0), None, None),
        ((6, 0, 0, 0, 0, 0, 0, 0, 4, 0), {0: 1}, {0: 1}),  # unknown ends the list
        ((5, 0, 0, 0, 0, 0, 0, 0, 5, 0), None, None),
        ((3, 0, 0, 0, 0, 0, 0, 0, 7, 0), None, None),
        ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None),
        ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None, None),
        ((0,) * 10, None, None),
    ],
)
def test_ferplus_cleaning(votes, majority, distribution):
    for protocol, expected in (("majority", majority), ("cross_entropy", distribution)):
        given = ferplus.distribution(np.array(votes, np.float64), protocol)
        if expected is None:
            assert given is None
        else:
            np.testing.assert_allclose(given, [expected.get(i, 0) for i in range(8)])


def test_ferplus_keeps_the_first_of_a_repeated_name_and_says_so(tmp_path, caplog):
    faces(
        tmp_path,
        [("PrivateTest", "1.png", CLEAR), ("Training", "2.png", CLEAR), ("PrivateTest", "1.png", (0,) * 9 + (10,))],
    )
    with caplog.at_level("WARNING"):
        examples = ferplus.load(str(tmp_path), {})
    assert examples.keys == ["FER2013Test/1.png", "FER2013Train/2.png"]
    assert "1.png (line 4, first on line 2)" in caplog.text


def test_ferplus_is_described_as_it_is(tmp_path):
    faces(tmp_path, ROWS)
    assert_described("ferplus", tmp_path, {"order": "affectnet"})
    options = {"protocol": "cross_entropy"}
    made, loaded = sources.describe("ferplus", options, 20), ferplus.load(str(tmp_path), options)
    assert interface(made)[:2] == interface(loaded)[:2]
    np.testing.assert_array_equal(made.columns["votes"].sum(axis=1), 1)
    assert (made.columns["votes"].sum(axis=0) >= 2).all()


def test_ferplus_refusals(tmp_path):
    faces(tmp_path / "a", ROWS, skip=("4.png",))
    with pytest.raises(InputError, match=r"fer2013new\.csv, line 6: FER2013Valid/4\.png is not in .*images"):
        ferplus.load(str(tmp_path / "a"), {})
    with pytest.raises(InputError, match=r"config\.data\.options\.protocol is 'majorty'.*mean 'majority'"):
        ferplus.load(str(tmp_path / "a"), {"protocol": "majorty"})
    with pytest.raises(InputError, match=r"config\.data\.options\.order is 'x'.*ferplus, affectnet"):
        ferplus.load(str(tmp_path / "a"), {"order": "x"})
    faces(tmp_path / "b", [("Trainng", "1.png", CLEAR)])
    with pytest.raises(InputError, match=r"line 2: there is no usage 'Trainng'"):
        ferplus.load(str(tmp_path / "b"), {})
    faces(tmp_path / "c", [("Training", "1.png", ("many", *CLEAR[1:]))])
    with pytest.raises(InputError, match=r"line 2: column 'neutral' holds 'many'"):
        ferplus.load(str(tmp_path / "c"), {})
    faces(tmp_path / "d", [("Training", "1.png", HALF)])
    with pytest.raises(InputError, match="no face has a label by the protocol 'majority'"):
        ferplus.load(str(tmp_path / "d"), {})
    with pytest.raises(InputError, match=r"fer2013new\.csv does not exist"):
        ferplus.load(str(tmp_path), {})


# Photographs


@pytest.mark.parametrize(("source", "names"), [(fi, class_lists.MIKELS), (emotion6, class_lists.EMOTION6)])
def test_photographs_by_folder_or_table(tmp_path, source, names, zipped):
    pictures = [f"{label}/{i}.png" for i, label in enumerate(reversed(names))]
    write(tmp_path / "images", pictures, zipped)
    by_folder = source.load(str(tmp_path), {})
    table(tmp_path, "path,label\n" + "".join(f"{path},{path.split('/')[0]}\n" for path in pictures))
    by_table = source.load(str(tmp_path), {})
    for examples in (by_folder, by_table):
        assert examples.classes["expression"] == names
        assert {key: names[i] for key, i in zip(examples.keys, examples.columns["expression"], strict=True)} == {
            path: path.split("/")[0] for path in pictures
        }


@pytest.mark.parametrize("options", [{}, {"classes": "awe,fear"}])
def test_fi_is_described_as_it_is(tmp_path, options):
    names = class_lists.MIKELS if not options else ("awe", "fear")
    write(tmp_path / "images", [f"{label}/{i}.png" for i, label in enumerate(names)])
    assert_described("fi", tmp_path, options)
    assert_described("fi_subset", tmp_path, options)


def emoset_tree(directory, entries, zipped=False):
    directory.mkdir(exist_ok=True)
    for name in ("train", "val", "test"):
        (directory / f"{name}.json").write_text(json.dumps(entries[name]))
    pictures = [entry[1] for part in entries.values() for entry in part if len(entry) > 1 and "missing" not in entry[1]]
    write(directory / "image", [path.removeprefix("image/") for path in dict.fromkeys(pictures)], zipped)


def emoset_entries():
    return {
        name: [
            [label, f"image/{label}/{label}_{name}.jpg", "annotation/x.json"] for label in reversed(class_lists.EMOSET)
        ]
        for name in ("train", "val", "test")
    }


def test_emoset(tmp_path, zipped):
    emoset_tree(tmp_path, emoset_entries(), zipped)
    examples = emoset.load(str(tmp_path), {})
    assert examples.classes["expression"] == (
        "amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness",
    )  # fmt: skip
    assert examples.columns["expression"].tolist() == list(range(7, -1, -1)) * 3
    assert examples.splits.tolist() == ["train"] * 8 + ["validation"] * 8 + ["test"] * 8
    assert examples.keys[0] == "sadness/sadness_train.jpg"
    assert examples.inputs["image"](0).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["joy", "image/x.jpg", "a"], r"train\.json, entry 8: there is no emotion 'joy'"),
        (["awe", "image/missing.jpg", "a"], r"train\.json, entry 8: 'image/missing\.jpg' is not in"),
        (["awe"], r"train\.json, entry 8: \['awe'\] is not \[emotion"),
        (["awe", "image/awe/awe_train.jpg", "a"], r"train\.json, entry 8: .*is also .*train\.json, entry 6"),
    ],
)
def test_emoset_refusals(tmp_path, entry, message):
    entries = emoset_entries()
    entries["train"].append(entry)
    emoset_tree(tmp_path, entries)
    with pytest.raises(InputError, match=message):
        emoset.load(str(tmp_path), {})


def test_emoset_broken_lists(tmp_path):
    emoset_tree(tmp_path, emoset_entries())
    for text, message in (
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        (f"[{'9' * 5000}]", "not readable as JSON"),
        ("{}", "not a list of entries"),
        ("[]", "not a list"),
    ):
        (tmp_path / "val.json").write_text(text)
        with pytest.raises(InputError, match=rf"val\.json is {message}"):
            emoset.load(str(tmp_path), {})
    (tmp_path / "val.json").unlink()
    with pytest.raises(InputError, match=r"val\.json does not exist"):
        emoset.load(str(tmp_path), {})


def oasis_tree(directory, ratings):
    write(directory / "images", [f"P {i}.png" for i in range(len(ratings))])
    lines = [f"P {i}.png,{'Animal' if i % 2 else 'Object'},{v},{a}" for i, (v, a) in enumerate(ratings)]
    table(directory, "\n".join(["path,category,valence_mean,arousal_mean", *lines]))


def test_oasis_scales_ratings(tmp_path):
    oasis_tree(tmp_path, [(1, 7), (4, 2.5)])
    examples = oasis.load(str(tmp_path), {})
    np.testing.assert_allclose(examples.columns["valence_arousal"], [[-1, 1], [0, -0.5]])
    assert examples.classes == {"category": ("animal", "object")}
    assert examples.columns["category"].tolist() == [1, 0]


def test_oasis_is_described_as_it_is(tmp_path):
    write(tmp_path / "images", [f"{name}.png" for name in oasis.CATEGORIES])
    lines = [f"{name}.png,{name.title()},{i + 1},4" for i, name in enumerate(oasis.CATEGORIES)]
    table(tmp_path, "\n".join(["path,category,valence_mean,arousal_mean", *lines]))
    assert_described("oasis", tmp_path, {})
    loaded = {"train": oasis.load(str(tmp_path), {"task": "terciles"})}
    labelled = sources.finish("oasis", loaded, {"task": "terciles"})["train"]
    made = sources.describe("oasis", {"task": "terciles"}, 20)
    assert interface(made)[:2] == interface(labelled)[:2]
    with pytest.raises(InputError, match=r"config\.data\.options\.task is 'x'"):
        sources.describe("oasis", {"task": "x"}, 20)


def test_oasis_terciles_come_from_the_training_split_alone(tmp_path):
    valence = np.linspace(1, 7, 90)
    oasis_tree(tmp_path, [(v, 4) for v in valence])
    splits = split(oasis.load(str(tmp_path), {"task": "terciles"}), {"train": 0.5, "test": 0.5}, 0)
    low = splits["train"].select(np.arange(30))
    parts = {"train": low, "test": splits["test"]}
    assert sources.finish("oasis", parts, {}) == parts
    labelled = sources.finish("oasis", parts, {"task": "terciles"})
    train_valence = np.sort(low.columns["valence_arousal"][:, 0])
    assert np.bincount(labelled["train"].columns["expression"]).tolist() == [10, 10, 10]
    expected = np.digitize(
        splits["test"].columns["valence_arousal"][:, 0],
        [(train_valence[9] * 1 + train_valence[10] * 2) / 3, (train_valence[19] * 2 + train_valence[20]) / 3],
        right=True,
    )
    assert labelled["test"].columns["expression"].tolist() == expected.tolist()
    assert labelled["test"].classes["expression"] == ("negative", "neutral", "positive")
    assert labelled["test"].columns["expression"].dtype == np.int32


def test_terciles():
    assert oasis.terciles(np.arange(1.0, 8.0)) == pytest.approx((3, 5))
    assert oasis.terciles(np.array([1, np.nan, 2, 3, 4, 5, 6, 7])) == pytest.approx((3, 5))
    for values in ([1.0, 2.0], [1.0] * 9, [np.nan] * 9, [0.0] + [1.0] * 9):
        with pytest.raises(InputError, match="cannot be cut in three"):
            oasis.terciles(np.array(values))


def test_oasis_refusals(tmp_path):
    oasis_tree(tmp_path, [(4, 4), (8, 4)])
    with pytest.raises(InputError, match=r"line 3: column 'valence_mean' holds 8, outside \[1, 7\]"):
        oasis.load(str(tmp_path), {})
    with pytest.raises(InputError, match=r"config\.data\.options\.task is 'tercile'.*mean 'terciles'"):
        oasis.load(str(tmp_path), {"task": "tercile"})


def test_diffusionfer(tmp_path, zipped):
    write(tmp_path / "images", ["sad/a.png", "neutral/b.png"], zipped)
    table(tmp_path, "path,valence,arousal,expression\nsad/a.png,-0.5,0.1,0\nneutral/b.png,0.7,1,6\n")
    examples = diffusionfer.load(str(tmp_path), {})
    assert examples.classes["expression"] == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert examples.columns["expression"].tolist() == [0, 6]
    np.testing.assert_allclose(examples.columns["valence_arousal"], [[-0.5, 0.1], [0.7, 1]], rtol=1e-6)
    for code in ("7", "-1", "1.5", "x"):
        table(tmp_path, f"path,valence,arousal,expression\nsad/a.png,0,0,{code}\n")
        with pytest.raises(InputError, match=rf"labels\.csv, line 2: .*{code}"):
            diffusionfer.load(str(tmp_path), {})


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [("1.5,0.1,6", "valence", "1.5"), ("0.7,-1.5,6", "arousal", "-1.5"), ("1.0001,1,6", "valence", "1.0001")],
)
def test_diffusionfer_refuses_what_is_off_the_scale_and_names_the_row(tmp_path, row, column, value):
    write(tmp_path / "images", ["sad/a.png", "neutral/b.png"])
    table(tmp_path, f"path,valence,arousal,expression\nsad/a.png,-1,1,0\nneutral/b.png,{row}\n")
    message = rf"{tmp_path}/labels\.csv, line 3: column '{column}' holds {value}, outside \[-1, 1\]"
    with pytest.raises(InputError, match=message):
        diffusionfer.load(str(tmp_path), {})
