import os
import pickle
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from emokd.data.files.store import Archive, FileError, Folder, find_directory, open_files
from emokd.errors import InputError

CONTENT = {"a/1.png": b"one" * 50, "a/2.png": b"two" * 50, "b/3.jpg": b"", "b/notes.txt": bytes(range(256)) * 40}


@pytest.fixture
def folder(tmp_path):
    for name, data in CONTENT.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "set" / ".hidden").write_bytes(b"x")
    (tmp_path / "set" / "empty").mkdir()
    return tmp_path / "set"


def write_zip(path, content=CONTENT, prefix="", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(prefix + name, data)
        archive.writestr("__MACOSX/" + prefix + "x.png", b"x")
    return path


@pytest.fixture(params=["folder", "stored", "deflated", "with own name on top", "with long extra fields"])
def files(request, tmp_path, folder):
    kind = request.param
    if kind == "folder":
        return Folder(str(folder))
    if kind == "with long extra fields":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, data in CONTENT.items():
                info = zipfile.ZipInfo(name)
                info.extra = struct.pack("<HH", 0x6666, 300) + b"e" * 300
                archive.writestr(info, data)
        return Archive(str(tmp_path / "x.zip"))
    method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
    return Archive(str(write_zip(tmp_path / "x.zip", prefix="x/" if kind.startswith("with") else "", method=method)))


def test_lists_and_reads_the_same_from_folder_and_archive(files):
    assert list(files.names) == sorted(CONTENT)
    assert {name: files.read(name) for name in files.names} == CONTENT
    assert {"a", "b"} <= set(files.directories)
    assert files.pictures() == ["a/1.png", "a/2.png", "b/3.jpg"]


def test_empty_folders_are_listed(folder):
    assert "empty" in Folder(str(folder)).directories


def test_reads_from_many_threads_and_after_pickling(files):
    copy = pickle.loads(pickle.dumps(files))
    names = list(files.names) * 100
    with ThreadPoolExecutor(8) as pool:
        for source in (files, copy):
            assert list(pool.map(source.read, names)) == [CONTENT[name] for name in names]


def test_find_accepts_the_usual_spellings(files):
    stem = os.path.splitext(os.path.basename(files.where))[0]
    for path in ("a/1.png", "./a/1.png", "a\\1.png", f"{stem}/a/1.png", " a/1.png "):
        assert files.find(path) == "a/1.png"
    assert files.find("a/9.png") is None


def test_contents_are_equal_exactly_where_the_bytes_are(tmp_path):
    data = {"a": b"same", "b": b"same", "c": b"diff", "d": b"longer"}
    (tmp_path / "f").mkdir()
    for name, value in data.items():
        (tmp_path / "f" / name).write_bytes(value)
    for files in (Folder(str(tmp_path / "f")), Archive(str(write_zip(tmp_path / "f.zip", data)))):
        content = files.contents(["a", "b", "c", "d"])
        texts = [content(i) for i in range(4)]
        assert texts[0] == texts[1]
        assert len(set(texts)) == 3


def test_a_file_of_unique_size_is_not_read_for_its_content(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"22")
    files = Folder(str(tmp_path))
    monkeypatch.setattr(files, "read", lambda name: pytest.fail("read"))
    assert files.contents(["a", "b"])(0) != files.contents(["a", "b"])(1)


def test_a_file_is_read_once_for_its_content(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    files = Folder(str(tmp_path))
    read, asked = files.read, []
    monkeypatch.setattr(files, "read", lambda name: asked.append(name) or read(name))
    content = files.contents(["a", "b"])
    assert [content(i) for i in (0, 1)] == [content(i) for i in (0, 1)]
    assert asked == ["a", "b"]


def test_links_that_loop_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    assert list(Folder(str(tmp_path)).names) == ["a/x.png"]


def test_missing_file(files, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.png"):
        files.read("nowhere.png")


def damage(path, at=60):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path


def test_damaged_archives(tmp_path):
    path = damage(write_zip(tmp_path / "x.zip", {"a.png": b"abcdefgh" * 100}, method=zipfile.ZIP_STORED))
    with pytest.raises(FileError, match=r"a\.png is damaged.*checksum"):
        Archive(str(path)).read("a.png")
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a readable zip"):
        Archive(str(path))


def test_a_place_that_is_a_file_is_said_to_be_no_zip_archive(tmp_path):
    for name, data, message in (
        ("cut.zip", b"PK\x03\x04cut", "cut.zip is not a readable zip archive"),
        ("empty.zip", b"", "empty.zip is not a readable zip archive"),
        ("set.tar.gz", b"\x1f\x8b", "set.tar.gz is neither a folder nor a zip archive. Unpack"),
        ("set.tar", bytes(512), "set.tar is neither a folder nor a zip archive. Unpack"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            open_files(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_said(tmp_path, caplog):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in (("a.png", b"1"), ("b.png", b"2"), ("a.png", b"3"), ("c/d.png", b"4"), ("c\\d.png", b"5")):
            archive.writestr(name, data)
    with caplog.at_level("WARNING"):
        files = Archive(str(tmp_path / "x.zip"))
    assert {name: files.read(name) for name in files.names} == {"a.png": b"3", "b.png": b"2", "c/d.png": b"5"}
    assert "holds 2 names more than once" in caplog.text and "counts: a.png, c/d.png." in caplog.text


def test_members_that_lead_out_of_the_archive(tmp_path, caplog):
    content = {"/a/1.png": b"1", "../a/2.png": b"2", "b/../../3.png": b"3", ".hidden/4.png": b"4"}
    with caplog.at_level("INFO"):
        files = Archive(str(write_zip(tmp_path / "x.zip", content)))
    assert list(files.names) == ["a/1.png"] and list(files.directories) == ["a"] and files.read("a/1.png") == b"1"
    assert "2 hidden ones" in caplog.text  # .hidden and __MACOSX
    assert "2 members whose names lead out of the archive by '..', such as ../a/2.png" in caplog.text


@pytest.mark.parametrize(("method", "number"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_an_archive_of_which_nothing_can_be_read_is_refused_at_once(tmp_path, method, number):
    path = write_zip(tmp_path / "y.zip", {"a.png": b"abc" * 100, "b.png": b"abc" * 90}, method=method)
    with pytest.raises(InputError, match=rf"y\.zip: all its 2 files are compressed by method {number}.*Unpack"):
        Archive(str(path))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.png", b"readable")
    archive = Archive(str(path))
    assert archive.read("c.png") == b"readable"
    with pytest.raises(FileError, match=rf"a\.png is compressed by method {number}"):
        archive.read("a.png")


def test_a_member_that_lies_about_its_size_is_not_inflated_to_its_end(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": bytes(50_000_000)})
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    path.write_bytes(data[: central + 24] + struct.pack("<I", 5000) + data[central + 28 :])
    archive = Archive(str(path))
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"a\.png is damaged \(it has another size"):
            archive.read("a.png")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_member_beyond_the_end_of_the_archive_is_damaged(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": b"abc" * 100})
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    path.write_bytes(data[: central + 20] + struct.pack("<I", 2**31) + data[central + 24 :])
    with pytest.raises(FileError, match=r"a\.png is damaged.*beyond"):
        Archive(str(path)).read("a.png")


def test_a_file_that_cannot_be_read_fails_when_it_is_read_and_not_before(tmp_path):
    (tmp_path / "a.png").write_bytes(b"same")
    (tmp_path / "b.png").write_bytes(b"same")
    for name in ("c.png", "d.png"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
    files = Folder(str(tmp_path))
    assert files.pictures() == ["a.png", "b.png", "c.png", "d.png"]
    content = files.contents(files.pictures())
    assert content(0) == content(1) and len({content(i) for i in range(4)}) == 3
    with pytest.raises(FileError, match=r"c\.png cannot be read: No such file.*Restore"):
        files.read("c.png")


def test_encrypted_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": b"abc"})
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    path.write_bytes(data[: central + 8] + b"\x01\x00" + data[central + 10 :])
    with pytest.raises(InputError, match="encrypted.*Unpack"):
        Archive(str(path))


def test_open_files_picks_folder_or_archive(tmp_path, folder):
    assert open_files(str(folder)).where == str(folder)
    write_zip(folder / "images.zip")
    assert open_files(str(folder)).where == str(folder / "images.zip")
    (folder / "images").mkdir()
    assert open_files(str(folder)).where == str(folder / "images")
    write_zip(tmp_path / "other.zip")
    for place in ("other", "other.zip"):
        assert list(open_files(str(tmp_path / place)).names) == sorted(CONTENT)


def test_an_archive_beside_a_folder_does_not_hide_it(tmp_path, folder):
    write_zip(tmp_path / "set.zip")
    assert open_files(str(folder)).where == str(folder)


def test_missing_places_name_path_variable_and_option(tmp_path, monkeypatch):
    monkeypatch.delenv("EMOKD_DATA", raising=False)
    with pytest.raises(InputError, match=r"--config\.data\.dir.*EMOKD_DATA.*fi/"):
        find_directory("fi")
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"{tmp_path}/fi\. Set --config\.data\.dir.*EMOKD_DATA"):
        find_directory("fi")
    with pytest.raises(InputError, match=r"elsewhere\. Set --config\.data\.dir.*EMOKD_DATA"):
        find_directory("fi", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"elsewhere\. Set --config\.data\.dir.*EMOKD_DATA"):
        open_files(str(tmp_path / "elsewhere"))
    (tmp_path / "fi").mkdir()
    assert find_directory("fi") == str(tmp_path / "fi")
    assert find_directory("fi", str(tmp_path)) == str(tmp_path)


def test_a_checksum_tells_files_of_one_size_apart_in_a_folder_and_in_an_archive_alike(tmp_path):
    (tmp_path / "set").mkdir()
    found = []
    for data in (b"1", b"2"):
        (tmp_path / "set" / "a").write_bytes(data)
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(tmp_path / "set" / "a", "a")
        folder = Folder(str(tmp_path / "set"))
        assert folder.checksum("a") == Archive(str(tmp_path / "set.zip")).checksum("a")
        found.append(folder.checksum("a"))
    assert found[0] != found[1]
    (tmp_path / "set" / "a").unlink()
    assert folder.checksum("a") == found[1]  # it had been read
    assert Folder(str(tmp_path)).checksum("gone") == ""


@pytest.mark.parametrize("size", [2**28 + 1, 2**31])
def test_a_member_that_would_fill_the_memory_is_not_inflated(tmp_path, size):
    path = write_zip(tmp_path / "x.zip", {"a.png": bytes(10_000)})
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    path.write_bytes(data[: central + 24] + struct.pack("<I", size) + data[central + 28 :])
    with pytest.raises(FileError, match=rf"a\.png is damaged \(it would take {size:,} bytes"):
        Archive(str(path)).read("a.png")
