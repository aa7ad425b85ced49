"""The command that trains, in a process of its own: what it says of the configuration, and what it stores of it."""

import json
import os
import pathlib
import re
import subprocess
import sys

from emokd.configuration import config as configuration

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = """
from emokd.recipes import supervised
from small_jobs import paint


def get_config(arg=""):
    config = paint(supervised.default_config(), steps=4)
    config.devices = 1
    return config
"""


def train(folder: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess:
    (folder / "experiment.py").write_text(CONFIG)
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "EMOKD_COMPILATION_CACHE": ""}
    return subprocess.run(
        [sys.executable, "-m", "emokd.train", "--config=experiment.py", "--workdir=run", *overrides],
        cwd=folder, env=os.environ | paths, capture_output=True, text=True,
    )  # fmt: skip


def test_a_run_says_which_keys_are_overridden_and_stores_what_it_resolved(tmp_path):
    """One step in place of four, in another unit; the batch is said again as it was, which changes nothing."""
    done = train(
        tmp_path, "--config.seed=5", "--config.phases.train.duration_epochs=0.34", "--config.batch_size=8",
        "--config.data.augment.crop_area=(0.5, 1.0)", "--config.optimizer.name=sgd",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.findall(r"I config: (.+)", done.stderr) == [
        "data.augment.crop_area: (0.35, 1.0) -> (0.5, 1.0)",
        "optimizer.name: 'adam' -> 'sgd'",
        "phases.train.duration_epochs: (absent) -> 0.34",
        "phases.train.duration_steps: 4 -> (absent)",
        "seed: 0 -> 5",
    ]
    (intention,) = re.findall(r"I (supervised on .+)", done.stderr)
    assert intention == (
        "supervised on painted_faces (synthetic) (train 24, validation 9, test 11): train 1 step; batches of 8 on "
        "1 device. Everything is written to run."
    )
    expected = json.loads(configuration.to_json(configuration.load(str(tmp_path / "experiment.py"))))
    expected["data"]["augment"]["crop_area"] = [0.5, 1.0]
    expected["optimizer"]["name"] = "sgd"
    expected["phases"]["train"]["duration_epochs"] = 0.34
    del expected["phases"]["train"]["duration_steps"]
    expected["seed"] = 5
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == expected
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["selected_step"] == 1
