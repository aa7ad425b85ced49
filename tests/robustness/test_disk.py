"""A disk that is full, that cannot be written, or is another one than the cache's: one message, and nothing is lost.

The disks are file systems in memory of some kilobytes, which only the superuser can mount.
"""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cached_jobs import make_config, no_training, save_teacher
from PIL import Image
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.jobs import command, job
from emokd.recipes import smkd, supervised
from emokd.weights import model_folder

ROOT = pathlib.Path(__file__).parents[2]


def mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path) -> Iterator[pathlib.Path]:
    """A mounted file system of 16 MB, whose size the tests change."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def resize(disk: pathlib.Path, options: str) -> None:
    assert mount("-o", f"remount,{options}", str(disk))


@pytest.fixture(scope="module")
def shared():
    return {}


@pytest.fixture(scope="module")
def config():
    config = paint(supervised.default_config(), steps=2)
    config.devices = 1
    config.evaluation.every_steps = 1
    config.checkpoint.min_seconds = 0.0
    return configuration.locked(config, {})


def run(config, workdir, shared) -> int:
    """As the command does, but in this process: its exit code."""
    try:
        with command.readable_errors("train"):
            job.train(config, workdir, shared=shared)
    except SystemExit as left:
        return left.code
    return 0


@pytest.fixture(scope="module")
def undisturbed(config, shared, tmp_path_factory) -> str:
    """The hash of the student of a run with room enough."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    job.train(config, folder, shared=shared)
    return model_folder.model_hash(folder / "student")


@pytest.mark.parametrize("kilobytes", [8, 64, 128])
def test_a_full_disk_is_one_message_and_with_room_the_run_ends_as_if_nothing_had_been(
    config, shared, disk, undisturbed, capfd, kilobytes
):
    capfd.readouterr()
    resize(disk, f"size={kilobytes}k")
    code = run(config, disk / "run", shared)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("train: ")]
    # What a run of this size takes changes with its parts: one that fits is fine, one that fails says so.
    assert (code, len(told)) in ((2, 1), (0, 0))
    assert all("no space left on the disk" in line or "free space" in line for line in told), told
    resize(disk, "size=64m")
    assert run(config, disk / "run", shared) == 0
    assert model_folder.model_hash(disk / "run" / "student") == undisturbed


def test_a_disk_that_cannot_be_written_is_one_message(config, shared, disk, capfd):
    resize(disk, "ro")
    assert run(config, disk / "run", shared) == 2
    [told] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("train: ")]
    assert str(disk) in told and "Read-only file system" in told


def test_pictures_on_a_disk_that_cannot_be_written_are_read(shared, disk, tmp_path):
    for i in range(24):
        (disk / "pictures" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 60 + i).convert("RGB").save(disk / "pictures" / "ab"[i % 2] / f"{i}.png")
    resize(disk, "ro")
    config = paint(supervised.default_config(), steps=1)
    config.devices = 1
    config.data.source, config.data.dir, config.data.options = "image_folder", str(disk / "pictures"), {}
    assert job.train(configuration.locked(config, {}), tmp_path / "run", shared=shared)["student"]


@pytest.mark.slow
def test_a_cache_and_teachers_on_another_disk_than_the_run(disk, tmp_path):
    found = []
    for place in (disk, tmp_path):
        config = make_config(smkd, {"one": save_teacher(place / "one", 1)}, **{"cache.dir": str(place / "cache")})
        job.write_cache(config, place / "cache", no_training)
        found.append(job.train(config, tmp_path / f"run_{len(found)}")["student"])
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kilobytes", [100, 1000, 3000])
def test_the_command_says_nothing_else(disk, kilobytes):
    """All of what it prints, up to the process's end: lines of its log, and no page of a library's."""
    resize(disk, f"size={kilobytes}k")
    arguments = ["--config=configs/teachers/painter.py:small", f"--workdir={disk / 'run'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command_line = [sys.executable, "-m", "emokd.train", *arguments]
    done = subprocess.run(command_line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d [IW] ", line)]
    assert (done.returncode, len(told)) in ((2, 1), (0, 0)), done.stderr
    assert done.returncode == 2 or kilobytes > 1000, done.stderr
    assert all(line.startswith("train: no space left on the disk: ") for line in told), done.stderr
