"""Pictures whose names come in another Unicode form or spelling than their table's, from folders and archives."""

import io
import os
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from emokd.data.division.splits import split
from emokd.data.files.store import Archive, Folder
from emokd.data.sources import combined, image_folder, manifest
from emokd.errors import InputError

FORMS = ("NFC", "NFD")
PEOPLE = ("Zoë", "Renée", "José", "Übung")


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, names, kind="folder"):
    """Writes distinct pictures: a folder, or an archive that says its names are UTF-8, or (a Mac's) does not."""
    if kind == "folder":
        for i, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture(i))
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, picture(i))
    data = bytearray(buffer.getvalue())
    if kind == "unsaid":  # bit 11 of the flags, in the local and the central headers
        for magic, place in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            start = -1
            while (start := data.find(magic, start + 1)) >= 0:
                data[start + place] &= ~0x08
    root.with_suffix(".zip").write_bytes(data)


@pytest.mark.parametrize("kind", ["folder", "said", "unsaid"])
@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("in_table", FORMS)
def test_a_table_finds_its_pictures_in_either_form(tmp_path, kind, on_disk, in_table):
    names = [f"a/{person}_{i}.png" for i, person in enumerate(PEOPLE)]
    write(tmp_path / "images", [unicodedata.normalize(on_disk, name) for name in names], kind)
    lines = [f"{unicodedata.normalize(in_table, name)},{'sad' if i % 2 else 'calm'}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    examples = manifest.load(str(tmp_path), {})
    assert examples.keys == names  # form C: ids and splits do not hang on where the set was copied
    assert [examples.inputs["image"](i)[0, 0, 0] for i in range(4)] == [0, 1, 2, 3]
    assert [len(examples.content(i)) > 0 for i in range(4)] == [True] * 4


def test_folders_of_one_class_in_two_forms_are_one_class(tmp_path, caplog):
    labels = ("colère", "joie", "tristesse")
    names = [f"{unicodedata.normalize(FORMS[i % 2], labels[i // 2 % 3])}/{i // 6}.png" for i in range(12)]
    write(tmp_path, names)
    with caplog.at_level("WARNING"):
        examples = image_folder.load(str(tmp_path), {"classes": ["joie", "cole\u0300re", "tristesse"]})
    assert examples.classes["expression"] == ("joie", "colère", "tristesse")
    assert sorted(examples.columns["expression"].tolist()) == [0, 0, 1, 1, 1, 1, 2, 2]
    assert len(set(examples.keys)) == len(examples)  # colère/0.png is there twice, in two folders
    assert "'colère'" in caplog.text and "e\\u0300" in caplog.text
    assert image_folder.load(str(tmp_path), {}).classes["expression"] == labels


@pytest.mark.parametrize("others", [("Happy", "happy"), ("happy", "happy "), ("very happy", "veryhappy")])
def test_folders_that_differ_in_case_or_spaces_are_refused(tmp_path, others):
    write(tmp_path, [f"{others[0]}/1.png", f"{others[1]}/2.png", "sad/3.png"])
    with pytest.raises(InputError, match=r"folder .*appy.*folder .*appy.*differ in letter case, spaces") as caught:
        image_folder.load(str(tmp_path), {})
    assert all(f"folder {name}" in str(caught.value) for name in others)
    write(tmp_path / "s", [f"train/{others[0]}/1.png", f"test/{others[1]}/2.png", "train/sad/3.png", "test/sad/4.png"])
    with pytest.raises(InputError, match="folder train/.*differ in letter case"):
        image_folder.load(str(tmp_path / "s"), {})


@pytest.mark.parametrize("other", ["./a.png", ".\\a.png", "x/../a.png", "images/a.png", ".//a.png"])
def test_one_picture_in_two_spellings_is_refused(tmp_path, other):
    write(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "labels.csv").write_text(f"path,label\na.png,sad\nb.png,calm\n{other},calm\n")
    with pytest.raises(InputError, match=r"line 4: .* is also on line 2, as 'a\.png'\. Keep one"):
        manifest.load(str(tmp_path), {})


def test_a_name_that_differs_in_case_is_told(tmp_path):
    write(tmp_path / "images", ["Zoë 1.PNG"])
    (tmp_path / "labels.csv").write_text("path,label\nzoë 1.png,sad\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: 'zoë 1\.png' is not in .*There is 'Zoë 1\.PNG'"):
        manifest.load(str(tmp_path), {})


def test_two_files_in_two_forms_are_told_apart_only_by_their_own_form(tmp_path):
    names = [unicodedata.normalize(form, "é.png") for form in FORMS]
    write(tmp_path, names)
    files = Folder(str(tmp_path))
    assert [files.find(name) for name in names] == names
    write(tmp_path / "x", [unicodedata.normalize(form, "éa\u0323\u0307.png") for form in FORMS])
    with pytest.raises(InputError, match=r"2 files are called .*Rename all but one"):
        Folder(str(tmp_path / "x")).find(unicodedata.normalize("NFC", "é") + "a\u0307\u0323.png")


def test_archives_with_backslashes_and_names_of_their_own_in_another_form(tmp_path):
    with zipfile.ZipFile(tmp_path / "é.zip", "w") as archive:
        for i, name in enumerate(("1.png", "2.png")):
            info = zipfile.ZipInfo(f"e\u0301\\sad\\{name}")
            info.filename = f"e\u0301\\sad\\{name}"
            archive.writestr(info, picture(i))
    files = Archive(str(tmp_path / "é.zip"))
    assert files.names == ["sad/1.png", "sad/2.png"]
    assert files.read("sad/2.png") == picture(1)


def test_groups_and_splits_do_not_hang_on_the_form(tmp_path):
    parts = []
    for form in FORMS:
        names = [f"{person}_{i}.png" for i, person in enumerate(PEOPLE * 6)]
        root = tmp_path / form
        write(root / "images", [unicodedata.normalize(form, name) for name in names])
        people = [unicodedata.normalize(FORMS[i // 4 % 2], name[:3]) for i, name in enumerate(names)]
        lines = [f"{name},{('calm', 'sad')[i % 2]},{people[i]}" for i, name in enumerate(names)]
        (root / "labels.csv").write_text("path,label,group\n" + "\n".join(lines) + "\n", encoding="utf-8")
        examples = manifest.load(str(root), {})
        assert len(set(examples.groups.tolist())) == 4
        parts.append(split(examples, {"train": 0.5, "test": 0.5}, 0, by_group=True))
    for name in ("train", "test"):
        assert parts[0][name].keys == parts[1][name].keys
        np.testing.assert_array_equal(parts[0][name].ids, parts[1][name].ids)


def test_combined_sets_must_spell_their_classes_alike(tmp_path):
    write(tmp_path / "a", ["Happy/1.png", "sad/2.png"])
    write(tmp_path / "b", ["happy/1.png", "sad/2.png"])
    sections = [{"source": "image_folder", "dir": str(tmp_path / name), "name": name} for name in "ab"]
    with pytest.raises(InputError, match=r"'Happy' .*'happy' .*differ in letter case"):
        combined.load(None, {"sources": sections})


def test_spaces_and_unseen_marks_around_a_path(tmp_path):
    write(tmp_path, [" a.png", "b.png", "c .png"])
    files = Folder(str(tmp_path))
    asked = (" a.png", "b.png ", "\u200bb.png", "\u00a0b.png\ufeff", "c .png")
    assert [files.find(path) for path in asked] == [" a.png", "b.png", "b.png", "b.png", "c .png"]


def test_a_path_as_a_web_address_is_told(tmp_path):
    write(tmp_path / "images", ["Zoë 1.png"])
    (tmp_path / "labels.csv").write_text("path,label\nZo%C3%AB%201.png,sad\n")
    with pytest.raises(InputError, match=r"line 2: .*There is 'Zoë 1\.png'"):
        manifest.load(str(tmp_path), {})


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"col\xe8re/1.png"])
def test_names_that_are_no_text_are_refused(tmp_path, name):
    write(tmp_path, ["sad/1.png", "happy/1.png"])
    place = os.fsencode(tmp_path) + b"/sad/" + name
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as file:
        file.write(picture(9))
    with pytest.raises(InputError, match=r"names of 1 files in .* are not UTF-8: 'sad/c.*\\udce.*rename them"):
        image_folder.load(str(tmp_path), {})
