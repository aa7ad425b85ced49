"""The command itself, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from emokd.benchmarking import page

ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
from small_jobs import paint

from emokd.recipes import supervised


def get_config(arg=""):
    config = paint(supervised.default_config(), steps=2)
    config.devices = 1
    return config
"""


@pytest.mark.slow
def test_it_writes_a_page_a_json_and_a_trace_that_agree(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    files = {"page": tmp_path / "pages" / "page.md", "json": tmp_path / "results.json", "trace": tmp_path / "trace"}
    command = [sys.executable, "-m", "emokd.benchmark", f"--config={tmp_path / 'tiny.py'}", "--data=real"]
    command += ["--steps=2", "--warmup=1", *(f"--{flag}={path}" for flag, path in files.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(files["json"].read_text())
    text = files["page"].read_text()
    assert text == page.page(results) and page.tables(results) in done.stdout
    assert results["provenance"]["command"] in text and "--data=real" in results["provenance"]["command"]
    assert results["data"]["kind"] == "real" and results["peak"]["dtype"] == "float32"
    (phase,) = results["phases"]
    assert f"{1e3 * phase['step_seconds']:.4g}" in text
    assert {part["part"] for part in phase["split"]} == {"augmentation", "student", "losses", "optimiser"}
    assert list((files["trace"] / phase["name"]).rglob("*.xplane.pb"))
