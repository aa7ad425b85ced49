"""Two processes of which one has a clock that is an hour ahead, or renames late: the run is that of two good ones."""

import json
import pathlib

import clock_ahead
import late_renames
import pytest
import several_processes
from several_processes import Run, comparable, losses, train_in_two_processes

from emokd.weights import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS, STOPPED = 4, 2


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("hosts") / "experiment.py"
    file.write_text(several_processes.SUPERVISED.replace("STEPS", str(STEPS)))
    return file


@pytest.fixture(scope="module")
def usual(experiment) -> dict:
    workdir = experiment.parent / "usual"
    train_in_two_processes(Run(experiment, workdir))
    return results(workdir)


def results(workdir: pathlib.Path) -> dict:
    return {
        "losses": losses(workdir),
        "scores": comparable(json.loads((workdir / "scores.json").read_text())),
        "student": model_folder.model_hash(workdir / "student"),
    }


def test_a_clock_an_hour_ahead_changes_nothing(experiment, usual):
    workdir = experiment.parent / "ahead"
    train_in_two_processes(Run(experiment, workdir), program=clock_ahead.__file__)
    assert results(workdir) == usual


def test_a_run_goes_on_where_the_clock_is_an_hour_earlier(experiment, usual):
    workdir = experiment.parent / "back"
    train_in_two_processes(Run(experiment, workdir, stop=STOPPED), program=clock_ahead.__file__)
    assert not (workdir / "scores.json").exists()
    train_in_two_processes(Run(experiment, workdir))
    assert results(workdir) == usual


def test_names_that_come_late_change_nothing(experiment, usual):
    """Checkpoints, scores and the student are renamed by process 0 while process 1 goes on."""
    workdir = experiment.parent / "late"
    train_in_two_processes(Run(experiment, workdir, stop=STOPPED), program=late_renames.__file__)
    train_in_two_processes(Run(experiment, workdir), program=late_renames.__file__)
    assert results(workdir) == usual
