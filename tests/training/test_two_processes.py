"""Two processes with two devices each against one process with four: losses, scores, caches, continuing on fewer.

The run that they finish splits its parameters and a teacher over all four devices, the one that is stopped does not.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from emokd import config as configuration
from emokd import job
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.reporting.metrics_log import read_metrics
from emokd.weights import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SPLIT = [
    "--config.mesh.fsdp=4",
    "--config.sharding.min_size=16",
    '--config.sharding.state=((".*", "fsdp"),)',
    '--config.sharding.teachers=(("one/params/.*", "fsdp"),)',
]
ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16
STEPS = 2
"""Of each phase."""
STOPPED = STEPS + 1
"""The step after which the power fails: inside the second phase."""

# Splits that fill no whole number of batches. Plain gradient descent: Adam's first steps have the size of the learning
# rate however small the gradient is, and would make of another order of sums another run.
EXPERIMENT = f"""
from emokd import defaults
from emokd.recipes import smkd


def get_config():
    config = smkd.default_config()
    config.batch_size = 8
    config.data.source = "painter"
    config.data.options = {{"size": {SIZE}, "train": 27, "validation": 9, "test": 11, "seed": 0}}
    config.data.canvas = {SIZE}
    config.data.num_threads = 1
    config.student = defaults.network("basic_cnn", size={SIZE}, width=2)
    config.optimizer.name = "sgd"
    for name in ("one", "two"):
        config.teachers[name] = defaults.teacher(checkpoint=f"FOLDER/teachers/{{name}}")
    for name in config.phases:
        config.phases[name] = defaults.phase(steps={STEPS}, learning_rate=1e-2, warmup_percent=0.0)
    config.evaluation = defaults.every(steps=1)
    config.log.every_steps = 1
    config.checkpoint.min_seconds = 0.0
    return config
"""

# emokd.train, until a checkpoint is whole on the disk.
UNTIL_STOPPED = f"""
import os

from emokd import train
from emokd.command import run
from emokd.training.checkpoints import Checkpoints

save = Checkpoints.save


def save_and_stop(self, state, *arguments):
    save(self, state, *arguments)
    if int(state.step) == {STOPPED}:
        self.wait()
        os._exit(0)


Checkpoints.save = save_and_stop
run(train.main, several_processes=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    options = {"width": 3, "size": SIZE}
    spec = NetworkSpec("basic_cnn", options, {"pretrained": 5}, preprocessing=Preprocessing(SIZE))
    for seed, name in enumerate(("one", "two")):
        params, stats = functional(spec).init(jax.random.key(seed))
        model_folder.save_model(folder / "teachers" / name, spec, params, stats, {"source": "test"})
    (folder / "experiment.py").write_text(EXPERIMENT.replace("FOLDER", str(folder)))
    (folder / "until_stopped.py").write_text(UNTIL_STOPPED)
    return folder


def environment() -> dict[str, str]:
    """This one's, without the number of devices and with the shortcuts of the compiler."""
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
    return os.environ | {"XLA_FLAGS": flags, "EMOKD_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


def load(folder: pathlib.Path, devices: int):
    config = configuration.load(str(folder / "experiment.py"))
    return configuration.locked(config, {"devices": devices})


def losses(workdir: pathlib.Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(workdir) if "loss" in row]


def comparable(scores: dict) -> dict:
    return {name: scores[name] for name in ("student", "teachers", "weights", "selected_step", "examples")}


def assert_close(a, b):
    def close(x, y):
        if isinstance(y, str):
            assert x == y
        else:
            np.testing.assert_allclose(x, y, rtol=1e-4)

    jax.tree.map(close, a, b)


@pytest.fixture(scope="module")
def alone(folder):
    """The run in this process, on four of its devices."""
    return job.train(load(folder, 4), folder / "alone")


@pytest.fixture(scope="module")
def two(folder):
    """What two processes print."""
    command = ["launch/local.sh", "--processes=2", "--devices=2"]
    command += [f"--config={folder / 'experiment.py'}", f"--workdir={folder / 'two'}", *SPLIT]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)


def test_two_processes_train_as_one(folder, alone, two):
    assert two.returncode == 0, two.stderr[-4000:]
    ours, theirs = losses(folder / "two"), losses(folder / "alone")
    assert [step for step, _ in theirs] == list(range(1, 4 * STEPS + 1))  # probe, distill, classify, finetune
    assert_close(ours, theirs)


def test_two_processes_score_as_one(folder, alone, two):
    assert_close(comparable(json.loads((folder / "two" / "scores.json").read_text())), comparable(alone))


def test_only_the_first_process_answers(folder, two):
    assert two.stdout.count("Workdir:") == 1


def test_two_processes_evaluate_as_one(folder, alone, two):
    address = free_address()
    children = [
        start(["-m", "emokd.evaluate", f"--workdir={folder / 'two'}"], address, process) for process in range(2)
    ]
    answers = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], answers[0][1][-4000:]
    first, second = (without_gloo(answer) for answer, _ in answers)
    assert second == ""
    assert_close(json.loads(first)["expression"], alone["student"]["expression"])


def test_a_run_of_two_processes_continues_in_one(folder, alone):
    address = free_address()
    arguments = [f"--config={folder / 'experiment.py'}", f"--workdir={folder / 'stopped'}"]
    children = [start([str(folder / "until_stopped.py"), *arguments], address, process) for process in range(2)]
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors[0][-4000:]
    assert losses(folder / "stopped")[-1][0] == STOPPED
    assert not (folder / "stopped" / "scores.json").exists()
    scores = job.train(load(folder, 2), folder / "stopped")
    assert_close(losses(folder / "stopped"), losses(folder / "alone"))
    assert_close(comparable(scores), comparable(alone))


def test_two_processes_write_the_teacher_cache_that_one_writes(folder):
    command = ["launch/local.sh", "--processes=2", "--devices=2", "--command=cache_teachers"]
    command += [f"--config={folder / 'experiment.py'}", "--config.data.views=2", f"--output={folder / 'shared'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert without_gloo(done.stdout).count("one, two: 3 views") == 1
    config = configuration.locked(load(folder, 2), {"data.views": 2})
    job.write_cache(config, folder / "unshared", job.teacher_trainer(folder, config.data))
    for name in ("cache.json", "index.npy", "features.npy"):
        assert (folder / "shared" / name).read_bytes() == (folder / "unshared" / name).read_bytes()
    assert len(list((folder / "shared").iterdir())) == 3


def without_gloo(output: str) -> str:
    """What a process prints, but for what the library of CPU collectives says of its connections."""
    return "".join(line for line in output.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def start(arguments: list[str], address: str, process: int) -> subprocess.Popen:
    """One of two processes with two devices."""
    names = {"EMOKD_COORDINATOR": address, "EMOKD_PROCESSES": "2", "EMOKD_PROCESS": str(process)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment() | names | {"JAX_NUM_CPU_DEVICES": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
