"""Two processes with two devices each against one process with four: losses, scores, caches, transport, continuing.

The quickest of these, for every day, are in test_continuing_over_processes.py.
"""

import json
import pathlib
import subprocess
from typing import Any

import jax
import pytest
import several_processes
from several_processes import (
    ROOT,
    Run,
    assert_close,
    assert_same_run,
    comparable,
    environment,
    in_two_processes,
    load,
    losses,
    train_in_two_processes,
    train_until,
    without_gloo,
)

from emokd.jobs import job
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.reporting.metrics_log import read_metrics
from emokd.training.programs import Programs
from emokd.weights import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SPLIT = several_processes.SPLIT | {"sharding.teachers": (("one/params/.*", "fsdp"),)}
"""Parameters and a teacher over all four devices."""
WHOLE = {"devices": 4}
SIZE = 16
STEPS = 2
"""Of each phase."""
STOPPED = STEPS + 1
"""The step after which the power fails: inside the second phase."""

# Splits that fill no whole number of batches. Plain gradient descent: Adam's first steps have the size of the learning
# rate however small the gradient is, and would make of another order of sums another run.
EXPERIMENT = f"""
from emokd.configuration import defaults
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

# Whose modality is privileged is imagined (MMD) and taught by transport: both compare the rows of the whole batch.
TRANSPORT = """
import small_jobs

from emokd.configuration import defaults
from emokd.recipes import mtpkdot


def get_config():
    config = small_jobs.paint(mtpkdot.default_config(), steps=STEPS)
    del config.student
    config.data.options.inputs = ("image", "physiology")
    config.modalities.face = defaults.modality("image", "basic_cnn", size=SIZE, width=2)
    config.modalities.trace = defaults.modality("physiology", "conv1d", privileged=True, width=4, depth=1)
    config.width, config.adapter_width = 4, 2
    config.fusion.name = "concatenation"
    config.hallucination.options = {"encoder": (4, 2), "decoder": (4,)}
    config.structure.k = 3
    config.phases.align.enabled = False
    config.optimizer.name = "sgd"
    return config
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
    transport = TRANSPORT.replace("STEPS", str(STEPS)).replace("SIZE", str(SIZE))
    (folder / "transport.py").write_text(transport)
    return folder


@pytest.fixture(scope="module")
def programs() -> dict[str, Programs]:
    """Compiled once for all runs of this process."""
    return {}


@pytest.fixture(scope="module")
def alone(folder, programs):
    """The run in this process, on four of its devices."""
    return job.train(load(folder / "experiment.py", WHOLE), folder / "alone", shared=programs)


@pytest.fixture(scope="module")
def cache(folder) -> pathlib.Path:
    """What this process alone writes of its teachers."""
    config = load(folder / "experiment.py", {"devices": 2, "data.views": 2})
    job.write_cache(config, folder / "cache", job.teacher_trainer(folder, config.data))
    return folder / "cache"


@pytest.fixture(scope="module")
def two(folder):
    """What two processes print."""
    flags = [f"--config.{name}={value}" for name, value in SPLIT.items()]
    command = ["launch/local.sh", "--processes=2", "--devices=2"]
    command += [f"--config={folder / 'experiment.py'}", f"--workdir={folder / 'two'}", *flags]
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
    first, second = in_two_processes(["-m", "emokd.evaluate", f"--workdir={folder / 'two'}"])
    assert second == ""
    assert_close(json.loads(first)["expression"], alone["student"]["expression"])


def test_two_processes_write_the_teacher_cache_that_one_writes(folder, cache):
    command = ["launch/local.sh", "--processes=2", "--devices=2", "--command=cache_teachers"]
    command += [f"--config={folder / 'experiment.py'}", "--config.data.views=2", f"--output={folder / 'shared'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert without_gloo(done.stdout).count("one, two: 3 views") == 1
    for name in ("cache.json", "index.npy", "features.npy"):
        assert (folder / "shared" / name).read_bytes() == (cache / name).read_bytes()
    assert len(list((folder / "shared").iterdir())) == 3


@pytest.fixture(scope="module")
def cached(cache) -> dict[str, Any]:
    """Changes that have the teachers read from the cache."""
    return {"data.views": 2, "cache.dir": str(cache)}


@pytest.fixture(scope="module")
def taken_over(folder, alone, cached, programs) -> pathlib.Path:
    """Runs of two processes: "split" is begun by them, "begun" finished, "transport" and "cached" are all theirs."""
    experiment = folder / "experiment.py"
    train_until(STOPPED, load(experiment, WHOLE), folder / "begun", programs)
    train_in_two_processes(
        Run(experiment, folder / "split", SPLIT, stop=STOPPED),
        Run(experiment, folder / "begun", SPLIT),
        Run(folder / "transport.py", folder / "transport"),
        Run(experiment, folder / "cached", cached),
    )
    return folder


def test_a_run_split_over_two_processes_continues_in_one(folder, alone, taken_over):
    assert losses(folder / "split")[-1][0] == STOPPED
    assert not (folder / "split" / "scores.json").exists()
    job.train(load(folder / "experiment.py", {"devices": 2}), folder / "split")
    assert_same_run(folder / "split", folder / "alone")


def test_a_run_of_one_process_continues_split_over_two(folder, taken_over):
    assert_same_run(folder / "begun", folder / "alone")


def test_two_processes_compare_the_rows_of_both(folder, taken_over):
    job.train(load(folder / "transport.py", WHOLE), folder / "transport_alone")
    last = [row for row in read_metrics(folder / "transport_alone") if "loss" in row][-1]
    assert any(value > 0 for name, value in last.items() if name.startswith("transport/divergence/"))
    assert_same_run(folder / "transport", folder / "transport_alone")


def test_two_processes_read_cached_teachers_as_one(folder, cached, taken_over):
    job.train(load(folder / "experiment.py", WHOLE | cached), folder / "cached_alone")
    assert_same_run(folder / "cached", folder / "cached_alone")
