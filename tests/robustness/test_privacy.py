"""Training, reporting, predicting and exporting write into the folders that they are given, and talk to nobody."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

WATCH = """
import socket

def _refuse(*arguments, **_):
    with open({mark!r}, "a") as file:
        print(arguments[-1], file=file)
    raise OSError("no network here")

_connect = socket.socket.connect
socket.socket.connect = lambda self, place: _connect(self, place) if self.family == socket.AF_UNIX else _refuse(place)
socket.getaddrinfo = _refuse
"""

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from emokd.jobs import command
command.configure_compilation_cache()
import numpy as np, emokd
from small_jobs import paint
from emokd.configuration import config as configuration
from emokd.exporting.export import export
from emokd.jobs import job, scoring
from emokd.recipes import supervised

config = paint(supervised.default_config(), steps=1)
config.devices = 1
job.train(configuration.locked(config, {{}}), {named!r} + "/run")
scoring.evaluate_student(__import__("pathlib").Path({named!r}) / "run", "test")
emokd.load({named!r} + "/run")(np.zeros((16, 16, 3), np.uint8))
export({named!r} + "/run/student", {named!r} + "/exported/model.onnx", timed=False)
"""


SESSION = """
import emokd, onnxruntime
from onnx import TensorProto, helper
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


def files(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_onnx_runtime_keeps_no_identifier_and_reports_nothing(tmp_path):
    pytest.importorskip("onnxruntime")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", SESSION], cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, check=True)
    assert files(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_written_elsewhere_and_no_connection_is_tried(tmp_path):
    pytest.importorskip("onnx")
    home, here, named, watch = (tmp_path / name for name in ("home", "here", "named", "watch"))
    for folder in (home, here, named, watch):
        folder.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH.format(mark=str(tmp_path / "connections")))
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "XLA_FLAGS") if name in os.environ}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(watch), "JAX_PLATFORMS": "cpu"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    program = PROGRAM.format(root=str(ROOT), named=str(named))
    done = subprocess.run([sys.executable, "-c", program], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "connections").exists(), (tmp_path / "connections").read_text()
    assert files(here) == []
    # The compilation cache, and matplotlib's list of the fonts here.
    elsewhere = [name for name in files(home) if not name.startswith((".cache/emokd/", ".cache/matplotlib/"))]
    assert elsewhere == []
    assert {"exported/model.onnx", "run/scores.json"} <= set(files(named))
