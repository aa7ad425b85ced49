"""Under launch/local.sh, a run that loses a process and one that is told to end: the same command continues them."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import held_run
import pytest
import several_processes
from several_processes import ROOT, assert_same_run, environment, free_port, load

from emokd.jobs import job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 6


@pytest.fixture
def experiment(tmp_path) -> pathlib.Path:
    path = tmp_path / "experiment.py"
    path.write_text(several_processes.SUPERVISED.replace("STEPS", str(STEPS)))
    return path


@contextlib.contextmanager
def launched(folder: pathlib.Path, log: pathlib.Path) -> Iterator[subprocess.Popen]:
    """The command, the same each time; what it started is gone afterwards, whatever happens."""
    python = folder / "python"
    python.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} {held_run.__file__} {folder} "$@"\n')
    python.chmod(0o755)
    command = ["launch/local.sh", "--processes=2", f"--port={free_port()}"]
    command += [f"--config={folder / 'experiment.py'}", f"--workdir={folder / 'run'}"]
    with log.open("w") as output:
        launcher = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | {"EMOKD_PYTHON": str(python)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield launcher
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()


def wait_for_checkpoint(step: int, folder: pathlib.Path, launcher: subprocess.Popen, log: pathlib.Path) -> list[int]:
    """Returns the processes of the run when the checkpoint is whole on the disk."""
    while not (folder / "run" / "checkpoints" / str(step)).exists():
        assert launcher.poll() is None, log.read_text()[-4000:]
        time.sleep(0.1)
    return [int((folder / f"{process}.pid").read_text()) for process in range(2)]


def have_ended(processes: list[int]) -> bool:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 0)
            return False
    return True


def test_the_same_command_continues_a_run_that_lost_a_process_and_one_that_was_told_to_end(experiment):
    folder = experiment.parent
    first, second = held_run.HELD
    logs = [folder / f"{name}.log" for name in ("killed", "told", "finished")]

    with launched(folder, logs[0]) as launcher:
        processes = wait_for_checkpoint(first, folder, launcher, logs[0])
        os.kill(processes[1], signal.SIGKILL)
        assert launcher.wait() != 0
        assert have_ended(processes)
    assert not (folder / "run" / "scores.json").exists()

    with launched(folder, logs[1]) as launcher:
        processes = wait_for_checkpoint(second, folder, launcher, logs[1])
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait() == 128 + signal.SIGTERM
        assert have_ended(processes)
    assert f"Continuing from step {first}." in logs[1].read_text()
    assert not (folder / "run" / "scores.json").exists()

    with launched(folder, logs[2]) as launcher:
        assert launcher.wait() == 0, logs[2].read_text()[-4000:]
    assert f"Continuing from step {second}." in logs[2].read_text()

    job.train(load(experiment, {"devices": 2}), folder / "alone", report=False)
    assert_same_run(folder / "run", folder / "alone")
