"""Which files count: the same for folders, archives and predict; nothing is waited for, what is left out is counted."""

import logging
import os
import pathlib
import socket
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from emokd.data import sources
from emokd.data.decode import DecodeError, read_file
from emokd.data.files.listing import PICTURE_SUFFIXES, by_suffix, is_hidden, is_picture, list_folder, read_regular
from emokd.data.files.store import Archive, Folder
from emokd.inference.finding import find_pictures

SHOWN = ("a/1.PNG", "a/2.Jfif", "a/deep/3.pgm", "b/4.aVif", "b/notes.txt", "b/5.heic")
HIDDEN = ("a/._1.PNG", ".DS_Store", "a/Thumbs.db", "__MACOSX/a/1.PNG", "b/DESKTOP.INI", "@eaDir/x.png", ".git/y.png")
PICTURES = ["a/1.PNG", "a/2.Jfif", "a/deep/3.pgm", "b/4.aVif"]


@pytest.fixture
def folder(tmp_path):
    for name in (*SHOWN, *HIDDEN):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "set"


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*SHOWN, *HIDDEN):
            archive.write(folder / name, name)
        link = zipfile.ZipInfo("b/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "4.aVif")
    return path


def test_folder_archive_and_predict_see_the_same_pictures(folder, tmp_path):
    files, archive = Folder(str(folder)), Archive(str(zipped(folder, tmp_path / "x.zip")))
    for found in (files, archive):
        assert list(found.names) == sorted(SHOWN)
        assert found.pictures() == PICTURES
    assert [each.name for each in find_pictures([str(folder)])] == [str(folder / name) for name in PICTURES]


def test_every_suffix_of_training_is_one_of_predict_in_any_letter_case(tmp_path):
    names = [f"{i:02d}{suffix if i % 2 else suffix.upper()}" for i, suffix in enumerate(sorted(PICTURE_SUFFIXES))]
    for name in names:
        (tmp_path / name).touch()
    assert (
        [pathlib.Path(each.name).name for each in find_pictures([str(tmp_path)])]
        == names
        == Folder(str(tmp_path)).pictures()
    )
    assert {".jpg", ".jpeg", ".png", ".webp", ".avif", ".jfif", ".pgm", ".ppm", ".gif", ".tiff"} <= PICTURE_SUFFIXES


def test_a_folder_inside_a_hidden_one_can_be_named(folder):
    assert [each.name for each in find_pictures([str(folder / ".git")])] == [str(folder / ".git" / "y.png")]
    hidden = str(folder / "a" / "._1.PNG")
    assert [each.name for each in find_pictures([hidden])] == [hidden]


@pytest.mark.parametrize("name", ["._x.png", ".x", "__MACOSX", "__macosx", "THUMBS.DB", "Desktop.ini", "$RECYCLE.BIN"])
def test_hidden_names(name):
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["x.png", "_x.png", "x._png", "MACOSX", "a.Thumbs.db.png"])
def test_names_that_are_not_hidden(name):
    assert not is_hidden(name)


def test_suffixes_are_counted_and_unread_pictures_get_a_remedy():
    text = by_suffix(["a.HEIC", "b.heic", "c.txt", "README"])
    assert text.startswith("2 .heic, 1 without suffix, 1 .txt")
    assert "convert" in text
    assert "convert" not in by_suffix(["c.txt"])
    assert "40 .x" in by_suffix([f"a.{i}" for i in range(20)] + ["b.x"] * 40)
    assert not is_picture("a.png.txt") and not is_picture("png")


def special(folder):
    """Things named like pictures that are none; reading the pipe would wait for ever."""
    os.mkfifo(folder / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket.png"))
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    return server


def test_pipes_sockets_devices_and_folders_are_no_pictures(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with special(tmp_path):
        with caplog.at_level(logging.WARNING):
            listing = list_folder(str(tmp_path))
            assert Folder(str(tmp_path)).pictures() == []
        assert listing.special == ["device.png", "pipe.png", "socket.png"]
        assert listing.directories == ["folder.png"] and not listing.names
        assert "3 pipes, sockets, devices" in caplog.text
        for name in (*listing.special, "folder.png"):
            with pytest.raises(DecodeError, match=rf"{name} cannot be read: .+ Correct the path"):
                read_file(name)
        with pytest.raises(OSError) as caught:
            read_regular("pipe.png")
        assert caught.value.strerror == "it is a pipe, not a file"
        assert [path.name for path in find_pictures(["pipe.png"])] == ["pipe.png"]  # named, so it is answered: an error


def test_a_folder_that_cannot_be_listed_is_said(folder, monkeypatch, caplog):
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(os.path.normpath(path)) == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with caplog.at_level(logging.WARNING):
        assert Folder(str(folder)).pictures() == [name for name in PICTURES if "deep" not in name]
    assert "1 folders that cannot be listed" in caplog.text and "Permission denied" in caplog.text


def test_what_class_folders_leave_out_is_said_by_suffix(tmp_path, caplog):
    for name in ("a/1.png", "b/2.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    for name in ("a/3.heic", "b/4.HEIC", "b/._2.PNG", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        examples = sources.load("image_folder", str(tmp_path), {}, min_side=4)
        found = find_pictures([str(tmp_path)])
    assert list(examples.keys) == ["a/1.png", "b/2.PNG"]
    assert [os.path.relpath(each.name, tmp_path) for each in found] == list(examples.keys)
    said = [message for message in caplog.messages if "2 .heic, 1 .txt" in message]
    assert len(said) == 2 and all("convert" in message for message in said)


def test_a_file_of_terabytes_is_no_picture(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(4 << 40)
    with pytest.raises(DecodeError, match=r"sparse\.png cannot be read: it has 4,398,046,511,104 bytes, more than any"):
        read_file(tmp_path / "sparse.png")
