"""A student that has learnt in floating point learns to compute in integers in a second run, and is exported."""

import json

import numpy as np
import pytest
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.exporting.export import export
from emokd.jobs import job
from emokd.recipes import supervised
from emokd.reporting.metrics_log import read_metrics
from emokd.weights import model_folder

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytestmark = pytest.mark.slow


def make_config(**changes):
    return configuration.locked(paint(supervised.default_config(), steps=4), changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a run in floating point, and of one in integers that begins with it."""
    folder = tmp_path_factory.mktemp("runs")
    job.train(make_config(), folder / "float", report=False)
    quantized = {"start_from": str(folder / "float"), "student.quantized": True}
    job.train(make_config(**quantized), folder / "integers", report=False)
    return folder / "float", folder / "integers"


def test_the_export_computes_what_was_scored(runs, tmp_path):
    import onnx

    _, integers = runs
    written = export(integers / "student", tmp_path / "int8" / "model.onnx", precision="int8", timed=False)
    assert written["file"]["ranges"] == "those that the network was trained with"
    assert "calibrated_on" not in written["file"]
    assert written["check"]["same_first_class"]["expression"] == 1.0
    assert written["check"]["largest_difference"]["expression"] < 1e-2
    scores = written["check"]["scores"]["expression"]
    assert scores["accuracy"]["file"] == scores["accuracy"]["network"]
    # The ranges in the file are those that training took.
    spec, _, stats, _ = model_folder.load_model(integers / "student")
    assert spec.quantized
    scale = onnx.numpy_helper.to_array(
        next(
            each
            for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] == "image"
            for each in onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer
            if each.name == node.input[1]
        )
    )
    low, high = stats["ranges"][0]
    assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-5)


def test_in_other_precisions_it_computes_in_floating_point(runs, tmp_path):
    _, integers = runs
    written = export(integers / "student", tmp_path / "model.onnx", timed=False)
    assert written["check"]["largest_difference"]["expression"] < 1e-4


def test_the_best_step_is_one_of_integers_and_the_first_run_stays_as_it_was(runs):
    floating, integers = runs
    assert not model_folder.load_trained(floating / "student").spec.quantized
    assert "quantized" not in json.loads((floating / "student" / "model.json").read_text())["spec"]
    model = model_folder.load_trained(integers / "student")
    assert np.ptp(model.stats["ranges"], axis=1).min() >= 0
    assert np.any(model.stats["ranges"])


def test_a_better_step_of_an_earlier_phase_is_not_selected(runs, tmp_path):
    floating, _ = runs
    config = make_config(**{"student.init": str(floating / "student"), "student.quantized": True})
    with config.unlocked():
        config.phases.head.enabled = True
        config.phases.train.learning_rate = 1.0  # spoils what the head has learnt
    scores = job.train(config, tmp_path / "run", report=False)
    found = {
        row["phase"]: row["validation/expression/accuracy"]
        for row in read_metrics(tmp_path / "run")
        if "validation/expression/accuracy" in row
    }
    assert found["head"] > found["train"]
    assert scores["validation"]["best"] == pytest.approx(found["train"])
    assert scores["selected_step"] > 4
