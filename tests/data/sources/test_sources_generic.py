import io
import pickle
import zipfile

import cloudpickle
import ml_collections
import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.decode import DecodeError
from emokd.data.sources import image_folder, manifest
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


# Class folders


def test_image_folder(tmp_path, zipped):
    names = ["sad/b.png", "sad/deep/a.JPG", "calm/c.png"]
    write(tmp_path / "images", names, zipped)
    examples = image_folder.load(str(tmp_path), {})
    assert examples.classes == {"expression": ("calm", "sad")}
    assert examples.keys == ["calm/c.png", "sad/b.png", "sad/deep/a.JPG"]
    assert examples.columns["expression"].tolist() == [0, 1, 1]
    assert examples.splits is None
    for i, key in enumerate(examples.keys):
        image = examples.inputs["image"](i)
        assert image.shape == (3, 4, 3)
        assert image[0, 0].tolist() == [names.index(key), 0, 7]


def test_extra_pictures_need_no_class_folders(tmp_path, zipped):
    write(tmp_path / "images", ["b.png", "a.JPG"], zipped)
    with pytest.raises(InputError, match="has no class folders"):
        sources.load("image_folder", str(tmp_path), {})
    examples = sources.load("image_folder", str(tmp_path), {}, targets=False)
    assert examples.keys == ["a.JPG", "b.png"] and not examples.columns and not examples.classes
    assert [examples.inputs["image"](i)[0, 0, 0] for i in range(2)] == [1, 0]


def test_an_extra_table_needs_no_targets(tmp_path):
    write(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "labels.csv").write_text("path,subject\nb.png,eve\n")
    with pytest.raises(InputError, match="no targets"):
        sources.load("manifest", str(tmp_path), {})
    examples = sources.load("manifest", str(tmp_path), {}, targets=False)
    assert examples.keys == ["b.png"] and not examples.columns and examples.groups.tolist() == ["eve"]


def test_image_folder_with_splits(tmp_path):
    write(tmp_path, ["train/sad/1.png", "train/calm/2.png", "val/sad/3.png", "Test/calm/4.png"])
    examples = image_folder.load(str(tmp_path), {})
    assert dict(zip(examples.keys, examples.splits, strict=True)) == {
        "Test/calm/4.png": "test",
        "train/calm/2.png": "train",
        "train/sad/1.png": "train",
        "val/sad/3.png": "validation",
    }
    assert examples.columns["expression"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("tops", "splits"),
    [
        (("train_set", "test_set"), {"train", "test"}),
        (("Training data", "Validation-Data"), {"train", "validation"}),
        (("train", "public_test", "private_test"), {"train", "validation", "test"}),
    ],
)
def test_image_folder_with_splits_in_more_words(tmp_path, tops, splits):
    write(tmp_path, [f"{top}/{label}/{top}.png" for top in tops for label in ("calm", "sad")])
    examples = image_folder.load(str(tmp_path), {})
    assert examples.classes["expression"] == ("calm", "sad")
    assert set(examples.splits) == splits


def test_image_folder_takes_no_splits_of_unknown_names_for_classes(tmp_path):
    write(tmp_path / "a", [f"{top}/{label}/1.png" for top in ("fer_train", "fer_test") for label in ("calm", "sad")])
    with pytest.raises(InputError, match=r"fer_test, fer_train each hold the same folders \(calm, sad\).*Rename them"):
        image_folder.load(str(tmp_path / "a"), {})
    assert len(image_folder.load(str(tmp_path / "a"), {"classes": ("fer_train", "fer_test")})) == 4
    write(tmp_path / "b", [f"{label}/{who}/1.png" for label in ("valued", "latest", "test") for who in ("s1", "s2")])
    assert image_folder.load(str(tmp_path / "b"), {}).classes["expression"] == ("latest", "test", "valued")


def test_image_folder_class_list_gives_the_order_and_ignores_the_rest(tmp_path, caplog):
    write(tmp_path, ["sad/1.png", "calm/2.png", "other/3.png", "sad/notes.txt", "root.png"])
    with caplog.at_level("WARNING"):
        examples = image_folder.load(str(tmp_path), {"classes": ["sad", "calm"]})
    assert examples.classes == {"expression": ("sad", "calm")}
    assert examples.columns["expression"].tolist() == [1, 0]
    assert "class list are ignored: other" in caplog.text
    assert "3 files" in caplog.text


def test_image_folder_refusals(tmp_path):
    write(tmp_path / "a", ["sad/1.png"])
    (tmp_path / "a" / "calm").mkdir()
    with pytest.raises(InputError, match="class 'calm' has no pictures"):
        image_folder.load(str(tmp_path / "a"), {})
    with pytest.raises(InputError, match=r"class 'glad' has no pictures.*calm, sad"):
        image_folder.load(str(tmp_path / "a"), {"classes": ["sad", "glad"]})
    with pytest.raises(InputError, match="'sad' twice"):
        image_folder.load(str(tmp_path / "a"), {"classes": ["sad", "sad"]})
    write(tmp_path / "b", ["1.png"])
    with pytest.raises(InputError, match=r"no class folders.*'manifest'"):
        image_folder.load(str(tmp_path / "b"), {})
    write(tmp_path / "c", ["train/sad/1.png", "extra/sad/2.png"])
    with pytest.raises(InputError, match=r"mixes split folders \(train\) with others \(extra\)"):
        image_folder.load(str(tmp_path / "c"), {})
    write(tmp_path / "d", ["train/sad/1.png", "test/sad/2.png", "test/calm/3.png"])
    with pytest.raises(InputError, match="'calm' has no pictures in the training split"):
        image_folder.load(str(tmp_path / "d"), {})
    with pytest.raises(InputError, match=r"nowhere\. Set --config\.data\.dir"):
        image_folder.load(str(tmp_path / "nowhere"), {})


def test_nothing_is_decoded_at_load_and_damage_shows_when_read(tmp_path):
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "1.png").write_bytes(b"no picture")
    examples = image_folder.load(str(tmp_path), {})
    with pytest.raises(DecodeError, match=r"sad/1\.png"):
        examples.inputs["image"](0)


def test_min_side_reaches_the_decoder(tmp_path):
    (tmp_path / "sad").mkdir()
    Image.new("RGB", (320, 160)).save(tmp_path / "sad" / "1.jpg")
    assert image_folder.load(str(tmp_path), {}).inputs["image"](0).shape == (160, 320, 3)
    assert image_folder.load(str(tmp_path), {"min_side": 40}).inputs["image"](0).shape == (40, 80, 3)


# Tables


def table(directory, text, name="labels.csv"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_manifest_labels(tmp_path, zipped, delimiter):
    write(tmp_path / "images", ["b.png", "x/a b.png", "c.png"], zipped)
    lines = ["path,label,split,group", "x/a b.png,sad,Training,s1", "", "b.png,calm,val,s2"]
    table(tmp_path, "\ufeff" + "\r\n".join(line.replace(",", delimiter) for line in lines))
    examples = manifest.load(str(tmp_path), {})
    assert examples.keys == ["x/a b.png", "b.png"]
    assert examples.classes == {"expression": ("calm", "sad")}
    assert examples.columns["expression"].tolist() == [1, 0]
    assert examples.splits.tolist() == ["train", "validation"]
    assert examples.groups.tolist() == ["s1", "s2"]
    assert examples.inputs["image"](0)[0, 0].tolist() == [1, 0, 7]


def test_manifest_named_table_class_list_and_ids(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    table(tmp_path, "path,label\na.png,1\nb.png,sad\n", "own.csv")
    for place, options in ((tmp_path, {"table": "own.csv"}), (tmp_path / "own.csv", {}), (tmp_path, {})):
        examples = manifest.load(str(place), {**options, "classes": "sad,calm"})
        assert examples.columns["expression"].tolist() == [1, 0]


def test_manifest_numeric_labels_sort_as_numbers(tmp_path):
    write(tmp_path, ["a.png", "b.png", "c.png"])
    table(tmp_path, "path,label\na.png,10\nb.png,2\nc.png,0\n")
    examples = manifest.load(str(tmp_path), {})
    assert examples.classes["expression"] == ("0", "2", "10")
    assert examples.columns["expression"].tolist() == [2, 1, 0]


def test_manifest_valence_arousal_and_votes(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    table(tmp_path, "path,valence,arousal,calm,sad\na.png,-1,0.5,3,1\nb.png,0,1,0,0\n")
    examples = manifest.load(str(tmp_path), {"classes": ("sad", "calm")})
    np.testing.assert_array_equal(examples.columns["valence_arousal"], np.array([[-1, 0.5], [0, 1]], np.float32))
    np.testing.assert_array_equal(examples.columns["votes"], np.array([[0.25, 0.75], [0, 0]], np.float32))
    assert examples.classes["expression"] == ("sad", "calm")
    assert set(manifest.load(str(tmp_path), {}).columns) == {"valence_arousal"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "path,label\na.png,sadd\n",
            {"classes": ["sad", "calm"]},
            r"line 2: .*'sadd'.*not a class.*mean 'sad'.*sad, calm",
        ),
        ("path,label\na.png,2\n", {"classes": ["sad", "calm"]}, r"line 2: .*'2'.*not a class"),
        ("path,label\na.png,\n", {}, r"line 2: column 'label' is empty"),
        (
            "path,label\nb.png,sad\na.png,sad\n./b.png,sad\nno.png,sad\nq.png,sad\n",
            {},
            r"line 5: 'no\.png'.*1 more rows",
        ),
        ("path,label\na.png,sad\nb.png,sad\na.png,calm\n", {}, r"line 4: 'a\.png' is also on line 2"),
        ("path,label\na.png,sad,1\n", {}, r"line 2: 3 cells for 2 columns"),
        ('path,label\nb.png,sad\n"a.png,sad\n', {}, r"line 3: not readable as CSV"),
        ("path,valence,arousal\na.png,inf,0\n", {}, r"line 2: column 'valence' holds inf, not a finite"),
        ("path,valence,arousal\na.png,nan,\n", {}, r"valence_arousal is empty in all rows"),
        ("path;valence;arousal\na.png;0,5;0\n", {}, r"line 2: column 'valence' holds '0,5'.*not a number"),
        ("path,valence,arousal\na.png,0,1.5\n", {}, r"line 2: column 'arousal' holds 1.5, outside \[-1, 1\]"),
        ("path,sad,calm\na.png,-1,2\n", {"classes": ["sad", "calm"]}, r"line 2: column 'sad' holds -1, outside"),
        ("path,label,split\na.png,sad,all\n", {}, r"line 2: there is no split 'all'.*train, validation or test"),
        ("path,label,group\na.png,sad, \n", {}, r"line 2: column 'group' is empty"),
        ("paths,label\na.png,sad\n", {}, r"line 1: there is no column 'path'.*mean 'paths'"),
        ("path,label,label\na.png,sad,x\n", {}, r"line 1: column 'label' appears twice"),
        ("path,mood\na.png,sad\n", {}, r"line 1: no targets.*It has: path, mood"),
        ("path,label\n\n", {}, r"labels\.csv has no rows"),
        ("", {}, r"labels\.csv is empty"),
        ("path,label\na.png,s\xe4d\n".encode("latin-1"), {}, r"labels\.csv is not UTF-8"),
    ],
)
def test_manifest_refusals(tmp_path, text, options, message):
    write(tmp_path / "images", ["a.png", "b.png"])
    table(tmp_path, text)
    with pytest.raises(InputError, match=rf"(?s)labels\.csv.*{message}|{message}"):
        manifest.load(str(tmp_path), options)


def test_manifest_without_a_table(tmp_path):
    write(tmp_path, ["a.png"])
    with pytest.raises(InputError, match=r"no labels\.csv; there is no \.csv file.*config\.data\.options\.table"):
        manifest.load(str(tmp_path), {})
    table(tmp_path, "path,label\na.png,x\n", "one.csv")
    table(tmp_path, "path,label\na.png,x\n", "two.csv")
    with pytest.raises(InputError, match=r"there are one\.csv, two\.csv"):
        manifest.load(str(tmp_path), {})
    with pytest.raises(InputError, match=r"three\.csv does not exist"):
        manifest.load(str(tmp_path), {"table": "three.csv"})


def test_archives_survive_pickling_with_their_examples(tmp_path):
    write(tmp_path / "images", ["sad/1.png", "calm/2.png"], zipped=True)
    examples = pickle.loads(cloudpickle.dumps(image_folder.load(str(tmp_path), {})))
    assert examples.inputs["image"](0).shape == (3, 4, 3)


def test_load_by_name(tmp_path, monkeypatch):
    write(tmp_path / "image_folder", ["sad/1.png", "calm/2.png"])
    Image.new("RGB", (320, 160)).save(tmp_path / "image_folder" / "sad" / "0.jpg")
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path))
    assert len(sources.load("image_folder", "", {})) == 3
    examples = sources.load("image_folder", str(tmp_path / "image_folder"), {}, min_side=20)
    assert examples.inputs["image"](1).shape == (20, 40, 3)
    assert sources.finish("image_folder", {"train": examples}, {}) == {"train": examples}
    chosen = sources.load("image_folder", "", ml_collections.ConfigDict({"classes": ("sad", "calm")}).lock())
    assert chosen.classes["expression"] == ("sad", "calm")
    with pytest.raises(InputError, match=r"config\.data\.source.*'image_foldr'.*mean 'image_folder'"):
        sources.load("image_foldr", None, {})
    with pytest.raises(InputError, match=rf"'fi' is not at {tmp_path}/fi"):
        sources.load("fi", None, {})
    with pytest.raises(InputError, match=r"config\.data\.options: image_folder has no option 'clases'.*mean 'classes'"):
        sources.load("image_folder", None, {"clases": ["sad"]})


def test_every_registered_source_loads():
    for name in {**sources.ON_DISK, **sources.GENERATED, **sources.COMPOSED}:
        assert callable(sources._module(name).load)
