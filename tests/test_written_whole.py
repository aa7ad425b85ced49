"""A file is the old one or the new one, whatever happens while it is written."""

import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from emokd.files import has_changed, write_whole, write_with_sum, written_whole


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


def test_killed_while_writing_the_old_file_stays(tmp_path):
    write_whole(tmp_path / "a", "before")
    script = (
        "import os, pathlib, signal\n"
        "from emokd.files import written_whole\n"
        f"with written_whole(pathlib.Path({str(tmp_path / 'a')!r})) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "before"


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
