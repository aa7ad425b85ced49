"""TFLite files, in an environment of their own."""

import numpy as np
import pytest
from exporting_setup import random_weights

from emokd.errors import InputError
from emokd.exporting import examples
from emokd.exporting.export import export
from emokd.exporting.formats import tflite
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights.model_folder import save_model

HEADS = {"expression": 3, "valence_arousal": 2}


@pytest.fixture(autouse=True)
def few_small_examples(monkeypatch):
    """Random examples to compare on, as many and as large as these tests need."""
    monkeypatch.setattr(examples, "EXAMPLES", 4)
    monkeypatch.setattr(examples, "_EDGE", 32)


def saved(folder, backbone, **options):
    spec = NetworkSpec(backbone, options, HEADS, {}, Preprocessing(size=options["size"]))
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in functional(spec).abstract)
    save_model(folder, spec, params, stats, {})
    return folder


def without_packages(monkeypatch):
    monkeypatch.setattr(tflite, "_MODULES", ("no_such_module_of_a_converter",))


def test_an_environment_that_cannot_be_made_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    without_packages(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tflite.sys, "executable", "false")
    with pytest.raises(InputError, match=r"cannot be made in .*tflite-.*litert-converter==0.5.0"):
        tflite.environment()
    assert list((tmp_path / "emokd").iterdir()) == []


def test_an_environment_is_made_once(tmp_path, monkeypatch):
    without_packages(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    called = []

    def make(command, **options):
        called.append(command)
        if command[1:3] == ["-m", "venv"]:
            python = tflite.pathlib.Path(command[3], "bin", "python")
            python.parent.mkdir(parents=True)
            python.write_text("")
        return tflite.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tflite.subprocess, "run", make)
    first = tflite.environment()
    assert first.exists()
    assert first.is_relative_to(tmp_path / "emokd")
    assert called[1][-len(tflite.PINS) :] == list(tflite.PINS)
    assert tflite.environment() == first
    assert len(called) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "options"),
    [("basic_cnn", {"width": 2, "size": 32}), ("mobilenet_v2", {"width": 0.35, "size": 64})],
)
def test_a_file_says_what_the_network_says(tmp_path, backbone, options):
    """The check inside `export` runs the file in ai-edge-litert."""
    try:
        tflite.environment()
    except InputError as error:
        pytest.skip(f"The converter's environment cannot be made here: {error}")
    folder = saved(tmp_path / "student", backbone, **options)
    written = export(folder, tmp_path / "out" / "model.tflite", format="tflite")
    assert (tmp_path / "out" / "model.tflite").read_bytes()[4:8] == b"TFL3"
    assert written["inputs"]["image"]["shape"][0] == 1
    assert written["check"]["runtime"] == "ai-edge-litert"
    assert max(written["check"]["largest_difference"].values()) < 1e-4
    assert set(written["check"]["milliseconds"]) == {"1"}
