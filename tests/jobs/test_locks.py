"""One process in a folder: who is refused, what the message says, and what killed and careless ones leave behind."""

import errno
import json
import os
import pathlib
import socket
import subprocess
import sys

import filelock
import pytest
from absl import logging

from emokd.errors import InputError
from emokd.jobs import locks

HOLD = """
import pathlib, sys
from emokd.jobs import locks
with locks.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds tmp_path/run until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(locks.__file__).parents[2],
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_live_lock_names_its_holder_and_disturbs_nothing(other, tmp_path):
    process = other
    folder = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    message = rf"run is in use by process {process.pid} on {socket.gethostname()}, since \d{{4}}-.*another folder"
    with pytest.raises(InputError, match=message), locks.held(folder):
        pass
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    process.stdin.close()
    assert process.wait(60) == 0
    with locks.held(folder):
        assert locks.owner(folder)["process"] == os.getpid()


def test_the_lock_of_a_killed_process_is_taken_over_and_said_so(other, tmp_path, monkeypatch):
    process = other
    process.kill()
    process.wait(60)
    folder = tmp_path / "run"
    assert (folder / locks.LOCK).exists()  # it could not remove it
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    with locks.held(folder):
        (folder / "result").write_text("")
    assert len(said) == 1 and str(process.pid) in said[0] and "taken over" in said[0]
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_folder_that_was_made_and_stayed_empty_is_removed_with_its_parents(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / locks.LOCK).exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with locks.held(tmp_path / "mine"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_folders_inside_each_other_have_locks_of_their_own(tmp_path):
    with locks.held(tmp_path), locks.held(tmp_path / "runs" / "one"):
        with pytest.raises(InputError, match="in use by process"), locks.held(tmp_path):
            pass


def test_a_copy_of_a_folder_in_use_is_not_in_use(tmp_path):
    (tmp_path / locks.LOCK).write_text("")
    (tmp_path / locks.OWNER).write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026"}))
    with locks.held(tmp_path):
        assert locks.owner(tmp_path)["host"] == socket.gethostname()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_has_a_marker(tmp_path, monkeypatch, number):
    """It is the library's: with host and process, live for others, and taken over when the process is gone."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with locks.held(tmp_path / "run"):
        assert filelock.SoftFileLock(tmp_path / "run" / locks.LOCK).pid == os.getpid()
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"), locks.held(tmp_path / "run"):
            pass
    assert list(tmp_path.iterdir()) == []
    with subprocess.Popen(["true"]) as gone:
        pass
    marker = tmp_path / locks.LOCK
    marker.write_text(f"{gone.pid}\n{socket.gethostname()}\n")
    os.utime(marker, (0, 0))
    with locks.held(tmp_path):
        assert filelock.SoftFileLock(marker).pid == os.getpid()


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match="file.* cannot be written .*Give a folder"),
        locks.held(tmp_path / "file" / below),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "run"))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(InputError, match="run cannot be written .Read-only file system.*Give a folder"):
        with locks.held(tmp_path / "run"):
            pass


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"process": 1}'])
def test_an_owner_that_something_has_damaged_is_nobody(tmp_path, content):
    with locks.held(tmp_path):
        (tmp_path / locks.OWNER).write_text(content)
        with pytest.raises(InputError, match="is in use by another process"), locks.held(tmp_path):
            pass
