"""The same seed on the same machine: the same bits, however often the programs are compiled."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import sys, tempfile
sys.path.insert(0, "tests")
import jax
from small_jobs import paint
from emokd.configuration import config as configuration
from emokd.jobs import job
from emokd.recipes import supervised
from emokd.weights import model_folder

config = paint(supervised.default_config(), steps=3)
config.batch_size = 32
config.data.options = {"size": 32, "train": 96, "validation": 32, "test": 32, "seed": 0}
config.data.canvas = config.student.size = 32
config.student.options.width = 16
config.devices = len(jax.devices())
for _ in range(int(sys.argv[1])):
    jax.clear_caches()
    with tempfile.TemporaryDirectory() as folder:
        job.train(configuration.locked(config, {}), folder + "/run", report=False)
        print(model_folder.model_hash(folder + "/run/student"), flush=True)
"""


def hashes(count: int, flags: str = "", prefix: tuple[str, ...] = ()) -> list[str]:
    """The student's hash from `count` compilations in one new process without the compilation cache."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    command = [*prefix, sys.executable, "-c", PROGRAM, str(count)]
    return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).split()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flags", ["", "--xla_force_host_platform_device_count=2"])
def test_ten_compilations_in_two_processes_give_the_same_bits(flags):
    found = hashes(5, flags) + hashes(5, flags)
    assert len(found) == 10 and len(set(found)) == 1


if __name__ == "__main__":  # what the table of docs/reliability.md holds
    for name, flags, prefix in (
        ("as it is", "", ()),
        ("one core", "", ("taskset", "-c", "0")),
        ("no threads in Eigen", "--xla_cpu_multi_thread_eigen=false", ()),
        ("two devices", "--xla_force_host_platform_device_count=2", ()),
        ("optimisation off", "--xla_backend_optimization_level=0", ()),
        ("no fusion emitters", "--xla_cpu_use_fusion_emitters=false", ()),
    ):
        print(name, *(each[:12] for each in hashes(3, flags, prefix)), flush=True)
