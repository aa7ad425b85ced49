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
from several_processes import ROOT, assert_same_run, environment, free_port, in_two_processes, load

from emokd.jobs import job
from emokd.training import peers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS = 9


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
    logs = [folder / f"{name}.log" for name in ("lost second", "lost first", "told", "finished")]
    begun = 0
    for lost, log, step in zip((1, 0), logs, held_run.HELD, strict=False):
        with launched(folder, log) as launcher:
            processes = wait_for_checkpoint(step, folder, launcher, log)
            os.kill(processes[lost], signal.SIGKILL)
            assert launcher.wait(timeout=60) in (peers.LOST, 128 + signal.SIGKILL)
            assert have_ended(processes)
        said = log.read_text()
        named = f"process {lost} of 2 (" + (f"pid {processes[1]} on " if lost else "127.0.0.1)")
        # Where the first process is gone, JAX's client notices it as soon, and may abort first.
        aborted = lost == 0 and "JAX distributed service detected fatal errors" in said
        assert f"train: {named}" in said and f"so process {1 - lost} ends too" in said or aborted, said[-4000:]
        assert "Traceback" not in said
        if begun:
            assert f"Continuing from step {begun}." in said
        assert not (folder / "run" / "scores.json").exists()
        begun = step

    with launched(folder, logs[2]) as launcher:
        processes = wait_for_checkpoint(held_run.HELD[2], folder, launcher, logs[2])
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait() == 0, logs[2].read_text()[-4000:]
        assert have_ended(processes)
    said = logs[2].read_text()
    assert f"Continuing from step {begun}." in said
    told = (
        f"train: Stopped by SIGTERM after step {held_run.HELD[2]}, which is saved. The same command goes on from there:"
    )
    assert said.count(told) == 1
    assert not (folder / "run" / "scores.json").exists()

    with launched(folder, logs[3]) as launcher:
        assert launcher.wait() == 0, logs[3].read_text()[-4000:]
    assert f"Continuing from step {held_run.HELD[2]}." in logs[3].read_text()

    job.train(load(experiment, {"devices": 2}), folder / "alone", report=False)
    assert_same_run(folder / "run", folder / "alone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_processes_stop_after_the_same_step_when_one_of_them_is_told(number):
    answers = in_two_processes([str(ROOT / "tests" / "told_to_stop.py"), str(int(number))])
    steps = [answer.split() for answer in answers]
    assert steps == [[number.name, "7"]] * 2, answers  # told in the fifth, which the answer of the seventh says
