"""Runs that go from two processes to one and from one to two, with parameters split over both: the quickest that do."""

import pathlib

import pytest
import several_processes
from several_processes import SPLIT, Run, assert_same_run, load, train_in_two_processes, train_until

from emokd.jobs import job
from emokd.training.programs import Programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

STEPS, STOPPED = 4, 2
WHOLE = {"devices": 4}


@pytest.fixture(scope="module")
def programs() -> dict[str, Programs]:
    """Compiled once for all runs of this process."""
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, programs) -> pathlib.Path:
    """Runs: "alone" in one process, "begun" by one and finished by two, and "split", which two have begun."""
    folder = tmp_path_factory.mktemp("processes")
    experiment = folder / "experiment.py"
    experiment.write_text(several_processes.SUPERVISED.replace("STEPS", str(STEPS)))
    config = load(experiment, WHOLE)
    job.train(config, folder / "alone", report=False, shared=programs)
    train_until(STOPPED, config, folder / "begun", programs)
    train_in_two_processes(
        Run(experiment, folder / "split", SPLIT, stop=STOPPED), Run(experiment, folder / "begun", SPLIT)
    )
    return folder


def test_a_run_of_one_process_continues_split_over_two(folder):
    assert_same_run(folder / "begun", folder / "alone")


def test_a_run_split_over_two_processes_continues_whole_in_one(folder, programs):
    assert not (folder / "split" / "scores.json").exists()
    stored = folder / "split" / "checkpoints" / str(STOPPED) / "state"
    assert "fsdp" in (stored / "_sharding").read_text()
    assert all(any((stored / f"ocdbt.process_{process}" / "d").iterdir()) for process in range(2))
    job.train(load(folder / "experiment.py", WHOLE), folder / "split", report=False, shared=programs)
    assert_same_run(folder / "split", folder / "alone")
