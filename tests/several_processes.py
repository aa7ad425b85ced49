"""What tests of several processes have in common: starting them, stopping runs, and what makes two runs the same.

As a program it is one of two processes: it does several runs one after another, so that they share its start.
"""

import ast
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import unittest.mock
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from emokd.configuration import config as configuration
from emokd.jobs import job
from emokd.jobs.command import run
from emokd.reporting.metrics_log import read_metrics
from emokd.training.checkpoints import Checkpoints
from emokd.training.programs import Programs
from emokd.weights import model_folder

ROOT = pathlib.Path(__file__).parents[1]
SPLIT: dict[str, Any] = {"mesh.fsdp": 4, "sharding.min_size": 16, "sharding.state": ((".*", "fsdp"),)}
"""Parameters and moments over all of four devices."""

SUPERVISED = """
import small_jobs

from emokd.configuration import defaults
from emokd.recipes import supervised


def get_config():
    config = small_jobs.paint(supervised.default_config(), steps=STEPS)
    # Plain gradient descent: Adam's first steps have the size of the learning rate however small the gradient is, and
    # would make of another order of sums another run.
    config.optimizer.name = "sgd"
    config.evaluation = defaults.every(steps=1)
    config.checkpoint.min_seconds = 0.0
    return config
"""
"""The cheapest run: one phase of STEPS steps, with a checkpoint after each."""


class Stopped(Exception):
    """Stands for the power cut."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run for two processes.

    Attributes:
      experiment: the configuration's file.
      workdir: the run's folder.
      changes: to the configuration, by dotted key.
      stop: the step after whose checkpoint the power fails; 0 for never.
    """

    experiment: pathlib.Path
    workdir: pathlib.Path
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stop: int = 0


def load(experiment: pathlib.Path, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    return configuration.locked(configuration.load(str(experiment)), changes)


def train_until(
    step: int, config: ml_collections.ConfigDict, workdir: pathlib.Path, shared: dict[str, Programs] | None = None
) -> None:
    """Trains until the checkpoint of a step is whole on the disk."""
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, state: Any, *arguments: Any) -> None:
        save(self, state, *arguments)
        if int(state.step) == step:
            self.wait()
            raise Stopped

    with unittest.mock.patch.object(Checkpoints, "save", save_and_stop):
        try:
            job.train(config, workdir, shared=shared)
        except Stopped:
            return
    raise AssertionError(f"{workdir} was not stopped after step {step}")


def train_in_two_processes(*runs: Run, program: str = __file__) -> None:
    """Does the runs one after another in two processes of two devices; what they compile alike is compiled once.

    Args:
      runs: what they do.
      program: what does it: this file, or one that ends with its `main`.
    """
    wanted = repr([(str(r.experiment), str(r.workdir), dict(r.changes), r.stop) for r in runs])
    in_two_processes([program, wanted])


def in_two_processes(arguments: Sequence[str]) -> list[str]:
    """What a program prints in each of two processes with two devices, of which none fails."""
    names = {"EMOKD_COORDINATOR": f"127.0.0.1:{free_port()}", "EMOKD_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "2"}
    children = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment() | names | {"EMOKD_PROCESS": str(process)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        answers = [child.communicate() for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(error[-4000:] for _, error in answers)
    return [without_gloo(output) for output, _ in answers]


def environment() -> dict[str, str]:
    """This one's, without the number of devices and with the shortcuts of the compiler."""
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return os.environ | {"XLA_FLAGS": flags, "EMOKD_PYTHON": sys.executable, "PYTHONPATH": path}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def without_gloo(output: str) -> str:
    """What a process prints, but for what the library of CPU collectives says of its connections."""
    return "".join(line for line in output.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def losses(workdir: pathlib.Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(workdir) if "loss" in row]


def comparable(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in ("student", "teachers", "weights", "selected_step", "examples")}


def assert_close(ours: Any, theirs: Any, **tolerance: float) -> None:
    """Trees of numbers and names, the numbers up to the order of sums."""

    def close(x: Any, y: Any) -> None:
        if isinstance(y, str):
            assert x == y
        else:
            np.testing.assert_allclose(x, y, **({"rtol": 1e-4} | tolerance))

    jax.tree.map(close, ours, theirs)


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """Losses of every step, scores and the student of two finished runs."""
    assert_close(losses(ours), losses(theirs))
    assert_close(*(comparable(json.loads((workdir / "scores.json").read_text())) for workdir in (ours, theirs)))
    students = [model_folder.load_trained(workdir / "student") for workdir in (ours, theirs)]
    assert_close(*((student.params, student.stats) for student in students), rtol=1e-3, atol=1e-5)


def main(argv: list[str]) -> None:
    """The runs that the one argument describes."""
    shared: dict[str, Programs] = {}
    for experiment, workdir, changes, stop in ast.literal_eval(argv[1]):
        config, folder = load(pathlib.Path(experiment), changes), pathlib.Path(workdir)
        if stop:
            train_until(stop, config, folder, shared)
        else:
            job.train(config, folder, report=False, shared=shared)


if __name__ == "__main__":
    run(main, several_processes=True)
