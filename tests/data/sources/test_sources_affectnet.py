"""Both releases of AffectNet, on generated trees in their layouts."""

import io
import logging
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from same_examples import assert_same_examples
from same_interface import assert_described

from emokd.data import sources
from emokd.data.decode import DecodeError
from emokd.data.division.splits import split
from emokd.data.pipeline import evaluation_batches
from emokd.data.sources import affectnet, affectnet_2021
from emokd.errors import InputError

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def coordinates(shade, width=64, height=48):
    """A picture whose pixel at (x, y) is (x, y, shade)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, shade)], axis=-1).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")  # lossless; readers go by the content, not by the suffix


def points(left=20.0, top=16.0, right=40.0, bottom=36.0):
    """68 landmarks whose box is as given."""
    rng = np.random.default_rng(0)
    inner = rng.uniform([left, top], [right, bottom], (66, 2))
    return np.concatenate([inner[:30], [[left, bottom], [right, top]], inner[30:]])


def joined(landmarks):
    return ";".join(f"{value:.2f}" for value in landmarks.reshape(-1))


# The release of 2017


def row(path, expression, valence=0.5, arousal=0.25, face="10,5,30,30", landmarks=None):
    return f"{path},{face},{joined(points()) if landmarks is None else landmarks},{expression},{valence},{arousal}\n"


TRAINING = [
    row("1/a.jpg", 0),
    row("1/b.JPG", 1),
    row("2/c.png", 7, -0.123456, 1),
    row("2/d.jpg", 8, -2, -2, face="NULL,NULL,NULL,NULL", landmarks="NULL"),
    row("2/e.jpg", 9, -2, -2),
    row("2/f.jpg", 10, -2, -2),
    row("2/g.jpg", 6, -2, -2),
]
VALIDATION = [row("3/h.jpg", 4, -1, 0), row("3/i.jpg", 5)]


def release_2017(directory, training=None, validation=None, header=(HEADER, HEADER), lists="", pictures=True):
    training, validation = TRAINING if training is None else training, VALIDATION if validation is None else validation
    (directory / lists).mkdir(parents=True, exist_ok=True)
    (directory / lists / "training.csv").write_text(header[0] + "".join(training))
    (directory / lists / "validation.csv").write_text(header[1] + "".join(validation))
    for shade, line in enumerate([*training, *validation] if pictures else []):
        save(directory / "Manually_Annotated_Images" / line.split(",")[0], coordinates(shade))
    return str(directory)


def test_2017(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        examples = sources.load("affectnet", release_2017(tmp_path), {})
    assert examples.keys == ["3/h.jpg", "3/i.jpg", "1/a.jpg", "1/b.JPG", "2/c.png", "2/g.jpg"]
    assert examples.splits.tolist() == ["test", "test", "train", "train", "train", "train"]
    assert examples.classes == {"expression": NAMES}
    assert [NAMES[i] for i in examples.columns["expression"]] == [
        "fear", "disgust", "neutral", "happy", "contempt", "anger",
    ]  # fmt: skip
    np.testing.assert_array_equal(
        examples.columns["valence_arousal"],
        np.array([[-1, 0], [0.5, 0.25], [0.5, 0.25], [0.5, 0.25], [-0.123456, 1], [np.nan, np.nan]], np.float32),
    )
    assert "none 1 of 1, uncertain 1 of 1, no face 1 of 1" in caplog.text


def test_2017_lists_in_their_folder_and_pictures_in_an_archive(tmp_path):
    plain = affectnet.load(release_2017(tmp_path / "a"), {})
    release_2017(tmp_path / "b", lists="Manually_Annotated_file_lists", pictures=False)
    shutil.make_archive(str(tmp_path / "b/Manually_Annotated_Images"), "zip", tmp_path / "a/Manually_Annotated_Images")
    archived = affectnet.load(str(tmp_path / "b"), {})
    assert archived.keys == plain.keys
    assert_same_examples(archived, plain)
    np.testing.assert_array_equal(archived.inputs["image"](3), plain.inputs["image"](3))


@pytest.mark.parametrize("options", [{}, {"classes": 5, "crop": "none"}])
def test_2017_is_described_as_it_is(tmp_path, options):
    assert_described("affectnet", release_2017(tmp_path), options)


def test_2017_validation_is_carved_from_train(tmp_path):
    training = [row(f"1/{i}.jpg", i % 2) for i in range(40)]
    parts = split(affectnet.load(release_2017(tmp_path, training), {}), {"train": 0.75, "validation": 0.25}, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 30, "validation": 10, "test": 2}
    assert parts["test"].keys == ["3/h.jpg", "3/i.jpg"]


def test_2017_crops(tmp_path):
    directory = release_2017(tmp_path)
    whole = coordinates(0)
    by_landmarks = affectnet.load(directory, {"min_side": 8}).inputs["image"](2)
    # Box 20, 16 to 40, 36: side 36.36, centre 30, 26.
    np.testing.assert_array_equal(by_landmarks, whole[8:44, 12:48])
    by_face = affectnet.load(directory, {"crop": "face"}).inputs["image"](2)
    crops = {crop: affectnet.load(directory, {"crop": crop}).face_crop for crop in ("landmarks", "face", "none")}
    assert crops == {"landmarks": "landmarks", "face": "box", "none": ""}
    np.testing.assert_array_equal(by_face, whole[5:35, 10:40])
    np.testing.assert_array_equal(affectnet.load(directory, {"crop": "none"}).inputs["image"](2), whole)


def test_2017_landmarks_outside_the_picture(tmp_path):
    partly, outside = joined(points(-10, 16, 10, 36)), joined(points(70, 16, 90, 36))
    directory = release_2017(tmp_path, [row("1/a.jpg", 0, landmarks=partly), row("1/b.jpg", 0, landmarks=outside)])
    examples = affectnet.load(directory, {})
    cut = examples.inputs["image"](2)
    assert not cut[:, :18].any()
    np.testing.assert_array_equal(cut[:, 18:], coordinates(0)[8:44, :18])
    with pytest.raises(
        DecodeError, match=r"affectnet, 1/b\.jpg: The box \(70, 16, 90, 36\).*picture, which is 64 x 48"
    ):
        examples.inputs["image"](3)
    # The pipeline counts it among the pictures that cannot be decoded, and stops at too many.
    evaluate = {"batch_size": 4, "canvas": 16, "fit": "crop", "num_threads": 0}
    batch = next(iter(evaluation_batches(examples, max_bad_fraction=0.25, **evaluate)))
    assert batch["mask"].tolist() == [True, True, True, False]
    with pytest.raises(InputError, match=r"1 of 4 pictures .*1/b\.jpg"):
        next(iter(evaluation_batches(examples, max_bad_fraction=0.1, **evaluate)))


@pytest.mark.parametrize("tables", [("", ""), (HEADER, "")])
def test_2017_without_headers(tmp_path, caplog, tables):
    with_headers = affectnet.load(release_2017(tmp_path / "a"), {})
    with caplog.at_level(logging.WARNING):
        without = affectnet.load(release_2017(tmp_path / "b", header=tables), {})
    assert without.keys == with_headers.keys
    assert_same_examples(without, with_headers)
    assert caplog.text.count("has no header line") == tables.count("")
    assert "validation.csv has no header line; its columns are read as subDirectory_filePath, face_x," in caplog.text


def test_2017_columns_in_another_order(tmp_path):
    plain = affectnet.load(release_2017(tmp_path / "a"), {})
    order = (8, 6, 0, 5, 7, 1, 2, 3, 4)

    def shuffled(line):
        cells = line.strip().split(",")
        return ",".join(cells[i] for i in order) + "\n"

    directory = release_2017(tmp_path / "b", pictures=False, header=(shuffled(HEADER), HEADER))
    (tmp_path / "b/training.csv").write_text(shuffled(HEADER) + "".join(map(shuffled, TRAINING)))
    shutil.copytree(tmp_path / "a/Manually_Annotated_Images", tmp_path / "b/Manually_Annotated_Images")
    assert_same_examples(affectnet.load(directory, {}), plain)


def test_2017_repeated_paths_keep_the_row_that_is_tested_on(tmp_path, caplog):
    directory = release_2017(tmp_path, [row("3/h.jpg", 1), row("1/a.jpg", 0), row("1/a.jpg", 2)])
    with caplog.at_level(logging.WARNING):
        examples = affectnet.load(directory, {})
    assert examples.keys == ["3/h.jpg", "3/i.jpg", "1/a.jpg"]
    assert examples.columns["expression"].tolist() == [4, 5, 0]
    assert "2 rows list a path again" in caplog.text
    assert "3/h.jpg (training.csv, line 2; validation.csv, line 2)" in caplog.text


def test_2017_five_classes_cleaned(tmp_path):
    training = [row("1/a.jpg", 6, -0.5, 0.5), row("1/b.jpg", 6, -0.5, -0.5), row("1/c.jpg", 7), row("1/d.jpg", 0, 0, 0)]
    examples = affectnet.load(
        release_2017(tmp_path, training, [row("3/h.jpg", 2, -0.2, 0), row("3/i.jpg", 1)]),
        {"classes": 5, "cleaning": "emonet"},
    )
    assert examples.name == "affectnet (cleaned as EmoNet's)"
    assert examples.classes["expression"] == ("neutral", "happy", "sad", "surprise", "anger")
    assert dict(zip(examples.keys, examples.columns["expression"].tolist(), strict=True)) == {
        "3/i.jpg": 1, "1/a.jpg": 4, "1/d.jpg": 0,
    }  # fmt: skip
    np.testing.assert_array_equal(examples.inputs["image"](2), coordinates(3)[8:44, 12:48])  # its own box and picture


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        (row("1/x.jpg", 11), {}, r"training\.csv, line 2: there is no expression code 11"),
        (row("1/x.jpg", 1, 1.2, 0), {}, r"training\.csv, line 2: valence is 1\.2, outside \[-1, 1\]"),
        (row("1/x.jpg", 1, 0, -2.5), {}, r"training\.csv, line 2: arousal is -2\.5, outside"),
        (row("1/x.jpg", 1, "x", 0), {}, r"training\.csv, line 2: column 'valence' holds 'x'"),
        (row("1/x.jpg", 8), {"no_expression": "refuse"}, r"training\.csv, line 2: .*code 8, none"),
        (row("1/x.jpg", 1, landmarks="1;2;3"), {}, r"line 2: column 'facial_landmarks' holds 3 numbers, not 136"),
        (row("1/x.jpg", 1, landmarks="1;;3"), {}, r"line 2: column 'facial_landmarks' holds what is not a number"),
        (row("1/x.jpg", 1, landmarks=";".join(["5"] * 136)), {}, r"line 2: The box \(5, 5, 5, 5\) .*no area\. .*crop"),
        (
            row("1/x.jpg", 1, landmarks=";".join(["1_0"] * 136)),
            {},
            r"line 2: column 'facial_landmarks' holds what is not",
        ),
        (row("1/x.jpg", 1, landmarks=";".join(["\u0661"] * 136)), {}, r"'facial_landmarks' holds what is not a number"),
        (row("1/x.jpg", 1, landmarks=joined(points() / 100)), {}, r"line 2: The box .* too small.* fractions .*crop"),
        (row("1/x.jpg", 1, face="0.2,0.2,0.5,0.5"), {"crop": "face"}, r"line 2: The box .* Are these fractions"),
        (row("1/x.jpg", 1, landmarks=";".join(["nan"] * 136)), {}, r"line 2: The box .*no area"),
        (row("1/x.jpg", 1, face="0,0,0,9"), {"crop": "face"}, r"line 2: The box \(0, 0, 0, 9\).* has no area"),
        (row("1/x.jpg", 1, face="0,0,NULL,9"), {"crop": "face"}, r"line 2: column 'face_width' holds 'NULL'"),
        ("1/x.jpg,1\n", {}, r"training\.csv, line 2: 2 cells for 9 columns"),
        (row("", 1), {}, r"training\.csv, line 2: column 'subDirectory_filePath' is empty"),
        ('"1/x.jpg', {}, r"training\.csv, line 2: not readable as CSV"),
        (row("1/x.jpg", 1), {"crop": "landmark"}, r"options\.crop is 'landmark'.*mean 'landmarks'"),
        (row("1/x.jpg", 1), {"cleanin": "emonet"}, r"affectnet has no option 'cleanin'.*mean 'cleaning'"),
        (
            row("1/x.jpg", 1),
            {},
            r"training\.csv, line 2: '1/x\.jpg' is not in .*Manually_Annotated_Images\. Restore",
        ),
    ],
)
def test_2017_refusals(tmp_path, line, options, message):
    directory = release_2017(tmp_path, [])
    (tmp_path / "training.csv").write_text(HEADER + line)
    with pytest.raises(InputError, match=message):
        affectnet.load(directory, options)


def test_2017_broken_tables(tmp_path):
    directory = release_2017(tmp_path)
    table = tmp_path / "training.csv"
    for text, message in (
        (b"", r"training\.csv, line 1 is neither a header nor a row"),
        (b"path,label\na.jpg,1\n", r"line 1 is neither a header nor a row of nine cells.*subDirectory_filePath,face_x"),
        (
            HEADER.replace("valence", "valense").encode(),
            r"line 1: there is no column 'valence'\. Did you mean 'valense'",
        ),
        (HEADER.encode() + b"\xff\xfe,", r"training\.csv is not UTF-8 text"),
    ):
        table.write_bytes(text)
        with pytest.raises(InputError, match=message):
            affectnet.load(directory, {})
    table.unlink()
    with pytest.raises(InputError, match=r"training\.csv does not exist.*Manually_Annotated_file_lists"):
        affectnet.load(directory, {})


# The release of 2021


def face(directory, part, number, expression="1", valence="0.5", arousal="0.25", landmarks=None, pixels=None):
    """One face as the release has it: labels as text, landmarks as 136 numbers."""
    save(directory / part / "images" / f"{number}.jpg", coordinates(number % 256) if pixels is None else pixels)
    annotations = directory / part / "annotations"
    annotations.mkdir(exist_ok=True)
    flat = points().reshape(-1) if landmarks is None else landmarks
    for suffix, value in (("exp", expression), ("val", valence), ("aro", arousal), ("lnd", flat)):
        np.save(annotations / f"{number}_{suffix}.npy", np.array(value))


def release_2021(directory):
    face(directory, "train_set", 10, "7", "-0.5", "1.0")
    face(directory, "train_set", 9, 0, 0.125, -1.0)  # numbers, as some copies have them
    face(directory, "train_set", 2, "6", "-2", "-2")
    face(directory, "val_set", 10, "4", "-0.123456", "0")
    return str(directory)


@pytest.mark.parametrize("zipped", [False, True])
def test_2021(tmp_path, zipped):
    directory = release_2021(tmp_path / "affectnet_2021")
    if zipped:
        directory = shutil.make_archive(str(tmp_path / "copy/affectnet_2021"), "zip", tmp_path, "affectnet_2021")
    examples = sources.load("affectnet_2021", directory, {}, min_side=16)
    assert examples.keys == [
        "train_set/images/2.jpg", "train_set/images/9.jpg", "train_set/images/10.jpg", "val_set/images/10.jpg",
    ]  # fmt: skip
    assert examples.splits.tolist() == ["train", "train", "train", "test"]
    assert [examples.classes["expression"][i] for i in examples.columns["expression"]] == [
        "anger", "neutral", "contempt", "fear",
    ]  # fmt: skip
    np.testing.assert_array_equal(
        examples.columns["valence_arousal"],
        np.array([[np.nan, np.nan], [0.125, -1], [-0.5, 1], [-0.123456, 0]], np.float32),
    )
    np.testing.assert_array_equal(examples.inputs["image"](1), coordinates(9))


@pytest.mark.parametrize("valence", ["0_1", "\u0660.\u0665", b"0_1"])
def test_2021_refuses_other_digits(tmp_path, valence):
    face(tmp_path, "train_set", 1, valence=valence)
    face(tmp_path, "val_set", 1)
    with pytest.raises(InputError, match=r"1_val\.npy cannot be read as an array of numbers: its text is no number"):
        affectnet_2021.load(str(tmp_path), {})


@pytest.mark.parametrize("shape", [(136,), (68, 2), (1, 136)])
def test_2021_crops(tmp_path, shape):
    face(tmp_path, "train_set", 1, landmarks=points().reshape(shape))
    face(tmp_path, "train_set", 2, "9", landmarks=np.zeros(136))
    face(tmp_path, "train_set", 3, landmarks=points(30, 10, 50, 30).reshape(shape))
    face(tmp_path, "val_set", 1)
    examples = affectnet_2021.load(str(tmp_path), {"crop": "landmarks"})
    assert examples.keys == ["train_set/images/1.jpg", "train_set/images/3.jpg", "val_set/images/1.jpg"]
    np.testing.assert_array_equal(examples.inputs["image"](0), coordinates(1)[8:44, 12:48])
    np.testing.assert_array_equal(examples.inputs["image"](1), coordinates(3)[2:38, 22:58])


def test_2021_landmarks_are_complained_of_with_their_picture(tmp_path):
    face(tmp_path, "train_set", 1, landmarks=np.zeros(10))
    face(tmp_path, "train_set", 2, landmarks=points(-50, 0, -10, 40).reshape(-1))
    face(tmp_path, "train_set", 3)
    face(tmp_path, "val_set", 1)
    examples = affectnet_2021.load(str(tmp_path), {"crop": "landmarks"})
    (tmp_path / "train_set/annotations/3_lnd.npy").write_bytes(b"\x93NUMPY")
    for i, message in enumerate(
        (r"1_lnd\.npy holds 10 numbers", r"train_set/images/2\.jpg: The box", r"3_lnd\.npy can")
    ):
        with pytest.raises(DecodeError, match=message):
            examples.inputs["image"](i)


def test_2021_fewer_classes_cleaned(tmp_path):
    face(tmp_path, "train_set", 1, "6", "-0.5", "0.5")
    face(tmp_path, "train_set", 2, "6", "-0.5", "-0.5")
    face(tmp_path, "val_set", 3, "7", "-0.5", "0.5")
    face(tmp_path, "val_set", 4, "0", "0.1", "0.1")
    examples = affectnet_2021.load(str(tmp_path), {"classes": 5, "cleaning": "emonet"})
    assert examples.keys == ["train_set/images/1.jpg", "val_set/images/4.jpg"]
    assert examples.columns["expression"].tolist() == [4, 0]
    assert examples.name == "affectnet_2021 (cleaned as EmoNet's)"


def archive():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(1))
    return buffer.getvalue()


def stored(value, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, value, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        ("exp", stored("8x"), r"train_set/annotations/9_exp\.npy cannot be read as an array of numbers: .*8x"),
        ("exp", stored("11"), r"9_exp\.npy: there is no expression code 11"),
        ("exp", b"", r"9_exp\.npy cannot be read"),
        ("exp", stored(np.arange(3)), r"9_exp\.npy holds 3 values, not one"),
        ("exp", stored(np.array([{}], object), allow_pickle=True), r"9_exp\.npy cannot be read .*pickle"),
        ("exp", b"PK\x03\x04 broken", r"9_exp\.npy cannot be read"),
        ("exp", archive(), r"9_exp\.npy cannot be read .*magic string"),
        ("exp", stored(np.array(1j)), r"9_exp\.npy cannot be read .*something else"),
        ("exp", stored("1")[:-2], r"9_exp\.npy cannot be read"),
        ("val", stored("1.5"), r"9_val\.npy: valence is 1\.5, outside \[-1, 1\]"),
        ("aro", stored("-3"), r"9_aro\.npy: arousal is -3, outside"),
        ("aro", stored("nan"), r"9_aro\.npy cannot be read .*not a finite number"),
    ],
)
def test_2021_wrong_annotations(tmp_path, suffix, data, message):
    directory = release_2021(tmp_path)
    (tmp_path / f"train_set/annotations/9_{suffix}.npy").write_bytes(data)
    with pytest.raises(InputError, match=message):
        affectnet_2021.load(directory, {})


def test_2021_incomplete_trees(tmp_path):
    directory = release_2021(tmp_path)
    os.remove(tmp_path / "train_set/annotations/10_lnd.npy")
    assert len(affectnet_2021.load(directory, {})) == 4
    with pytest.raises(InputError, match=r"1 pictures lack an annotation: train_set/annotations/10_lnd\.npy"):
        affectnet_2021.load(directory, {"crop": "landmarks"})
    os.remove(tmp_path / "train_set/annotations/10_aro.npy")
    with pytest.raises(InputError, match=r"1 pictures lack an annotation: train_set/annotations/10_aro\.npy"):
        affectnet_2021.load(directory, {})
    os.remove(tmp_path / "train_set/images/9.jpg")
    with pytest.raises(InputError, match=r"1 annotations have no picture .*train_set/annotations/9_exp\.npy"):
        affectnet_2021.load(directory, {})
    shutil.rmtree(tmp_path / "val_set")
    shutil.rmtree(tmp_path / "train_set/annotations")
    with pytest.raises(InputError, match=r"has no pictures in val_set/images/"):
        affectnet_2021.load(directory, {})
    with pytest.raises(InputError, match=r"options\.crop is 'face'.*none, landmarks"):
        affectnet_2021.load(directory, {"crop": "face"})


def test_2021_two_pictures_of_one_annotation(tmp_path):
    directory = release_2021(tmp_path)
    shutil.copy(tmp_path / "train_set/images/9.jpg", tmp_path / "train_set/images/9.png")
    with pytest.raises(
        InputError, match=r"images/9\.jpg and train_set/images/9\.png have the same annotations.*Keep one"
    ):
        affectnet_2021.load(directory, {})


def test_2021_archives_list_what_they_hold(tmp_path):
    release_2021(tmp_path / "a")
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "b.zip") as names:
        assert "train_set/images/9.jpg" in names.namelist()
    assert affectnet_2021.load(str(tmp_path / "b.zip"), {}).keys == affectnet_2021.load(str(tmp_path / "a"), {}).keys
