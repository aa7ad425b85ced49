"""A file is the old one or the new one, whatever happens while it is written."""

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from emokd.files import folder_written_whole, has_changed, write_whole, write_with_sum, written_whole


def test_texts_and_bytes(tmp_path):
    write_whole(tmp_path / "a", "Zoë\n")
    assert (tmp_path / "a").read_bytes() == b"Zo\xc3\xab\n"
    write_whole(tmp_path / "a", memoryview(b"12"))
    assert (tmp_path / "a").read_bytes() == b"12"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("x")])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error):
    write_whole(tmp_path / "a", "before")
    with pytest.raises(type(error)), written_whole(tmp_path / "a") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "a").read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_it_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Else a crash of the machine may leave an empty file under the right name."""
    seen = []
    sync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append("sync"), sync(descriptor)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda path, to: (seen.append("replace"), replace(path, to))[1])
    write_whole(tmp_path / "a", "x")
    assert seen == ["sync", "replace"]


def test_killed_while_writing_the_old_file_stays_and_the_next_write_removes_the_rest(tmp_path, caplog):
    write_whole(tmp_path / "a", "before")
    script = (
        "import os, pathlib, signal\n"
        "from emokd.files import written_whole\n"
        f"with written_whole(pathlib.Path({str(tmp_path / 'a')!r})) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "before" and len(os.listdir(tmp_path)) == 2
    others = [".a.txt", ".a.tmp", ".a.xyz.tmp", ".ab.12.tmp", ".a.12.tmp.png", ".b.12.tmp"]
    for name in others:
        (tmp_path / name).touch()
    with caplog.at_level("WARNING"):
        write_whole(tmp_path / "a", "after")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a"]) and (tmp_path / "a").read_text() == "after"
    (record,) = caplog.records
    assert "tmp is removed: a process was killed while it wrote" in record.getMessage()


def test_what_another_process_is_writing_stays(tmp_path, caplog):
    script = (
        "import pathlib, sys\n"
        "from emokd.files import folder_written_whole, written_whole\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "with written_whole(place / 'a') as file, folder_written_whole(place / 'b') as folder:\n"
        "    file.write(b'theirs'); (folder / 'x').write_text('theirs')\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout.readline() == "ready\n"
        write_whole(tmp_path / "a", "ours")
        with folder_written_whole(tmp_path / "b") as folder:
            (folder / "x").write_text("ours")
        assert (tmp_path / "a").read_text() == (tmp_path / "b" / "x").read_text() == "ours"
        other.communicate("", timeout=60)
    assert other.returncode == 0 and not caplog.records and sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").read_text() == (tmp_path / "b" / "x").read_text() == "theirs"


@pytest.mark.parametrize("when", ["writing", "replacing"])
def test_killed_while_replacing_a_folder_the_next_write_begins_with_the_old_one(tmp_path, caplog, when):
    with folder_written_whole(tmp_path / "b") as folder:
        (folder / "x").write_text("before")
    kill = "lambda *args: os.kill(os.getpid(), signal.SIGKILL)"
    script = (
        "import os, pathlib, signal\n"
        "from emokd.files import folder_written_whole\n"
        f"with folder_written_whole(pathlib.Path({str(tmp_path / 'b')!r})) as folder:\n"
        "    (folder / 'x').write_text('after')\n"
        "    rename = pathlib.Path.rename\n"
        f"    stop = {kill}\n"
        f"    if {when == 'writing'}: stop()\n"
        "    pathlib.Path.rename = lambda path, to: stop() if path.suffix == '.tmp' else rename(path, to)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2 and (tmp_path / "b").exists() == (when == "writing")
    with caplog.at_level("WARNING"), pytest.raises(ValueError, match="stop"):
        with folder_written_whole(tmp_path / "b") as folder:
            raise ValueError("stop")
    assert os.listdir(tmp_path) == ["b"] and (tmp_path / "b" / "x").read_text() == "before"
    assert ("is put back" in caplog.text) == (when == "replacing")
    assert "tmp is removed: a process was killed" in caplog.text


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def refuses(*args):
        raise OSError(errno.ENOLCK, "no locks")

    (tmp_path / ".a.12.tmp").touch()
    monkeypatch.setattr("fcntl.flock", refuses)
    write_whole(tmp_path / "a", "x")
    assert sorted(os.listdir(tmp_path)) == [".a.12.tmp", "a"]


def test_one_that_is_taken_for_a_leftover_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    lock, seen = fcntl.flock, []

    def late(file, how):
        if not isinstance(file, int) and not seen:  # the new file, whose descriptor is the cleaner's otherwise
            seen.append(file.name)
            os.unlink(file.name)
        lock(file, how)

    monkeypatch.setattr("fcntl.flock", late)
    write_whole(tmp_path / "a", "x")
    assert seen and os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "x"


def test_a_text_with_a_sum_notices_a_changed_bit_and_survives_a_crash_between_the_two(tmp_path):
    path = tmp_path / "scores.json"
    assert not has_changed(path)
    write_with_sum(path, "first")
    listed = (tmp_path / "scores.json.sha256").read_text()
    assert listed == f"{hashlib.sha256(b'first').hexdigest()}  scores.json\n" and not has_changed(path)
    write_with_sum(path, "second")
    assert not has_changed(path)
    path.write_text("first")  # as if the machine had stopped before the second text replaced it
    assert not has_changed(path)
    path.write_text("firsu")
    assert has_changed(path)
