"""Integer networks: known answers, and what a real export is refused for."""

import json

import numpy as np
import pytest
from exporting_setup import random_weights

from emokd.configuration import config as configuration
from emokd.errors import InputError
from emokd.exporting import checking
from emokd.exporting.export import export
from emokd.exporting.graph import BATCH, Graph
from emokd.exporting.quantisation import insert, quantised_tensors
from emokd.exporting.ranges import Seen, Step, observe
from emokd.exporting.session import Session
from emokd.exporting.writing import to_model
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.weights.model_folder import save_model


def run(graph, arrays):
    return Session(to_model(graph, "0").SerializeToString())(arrays)


def product(weights, bias):
    """x @ weights + bias."""
    graph = Graph()
    source = graph.input("x", (BATCH, len(weights)), np.float32)
    inputs = [source, graph.constant(weights), graph.constant(bias)]
    graph.outputs["y"] = graph.add("Gemm", inputs, (BATCH, weights.shape[1]))
    return graph


def test_whole_numbers_in_range_are_computed_exactly():
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, (6, 3)).astype(np.float32)
    weights[0] = 127  # so that every channel's scale is 1
    bias = np.asarray([5, -1000, 40000], np.float32)
    graph = product(weights, bias)
    values = generator.integers(-55, 201, (9, 6)).astype(np.float32)
    insert(graph, {"x": Step.of(-55, 200)}, {})
    assert {node.op for node in graph.nodes} == {"QuantizeLinear", "DequantizeLinear", "Gemm"}
    np.testing.assert_array_equal(run(graph, {"x": values})["y"], values @ weights + bias)


def test_a_step_holds_zero_exactly_and_errs_by_half_of_itself():
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        step = Step.of(low, high)
        assert step.rounded(np.zeros(1)) == 0
        values = np.linspace(low, high, 1001)
        assert np.abs(step.rounded(values) - values).max() <= 0.500001 * step.scale + 1e-7 * abs(low)


def test_a_rare_outlier_does_not_set_the_step():
    counts = np.zeros(2048)
    counts[:256], counts[-1] = 100_000, 1
    seen = Seen(0.0, 8.0, counts, np.zeros(1))
    assert seen.whole().scale == pytest.approx(8 / 255, rel=1e-5)
    assert seen.closest().scale < 0.4 * seen.whole().scale


def test_a_bias_takes_up_what_rounding_the_weights_adds_to_the_mean():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(64, 4)).astype(np.float32)
    bias = np.zeros(4, np.float32)
    values = (3 + generator.random((500, 64))).astype(np.float32)
    seen = observe(product(weights, bias), {"x": -1}, [{"x": values[:250]}, {"x": values[250:]}])
    np.testing.assert_allclose(seen["x"].means, values.mean(0), rtol=1e-5)
    assert (seen["x"].low, seen["x"].high) == (values.min(), values.max())
    errors = []
    for means in ({}, seen):
        graph = product(weights, bias)
        insert(graph, {"x": seen["x"].whole()}, means)
        errors.append(np.abs((run(graph, {"x": values})["y"] - values @ weights).mean(0)).max())
    assert errors[1] < 0.2 * errors[0]


def test_grouped_convolutions_are_corrected_channel_by_channel():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(4, 1, 3, 3)).astype(np.float32)
    weights[:, 0, 0, 0] *= 20  # a step so wide that rounding shifts the means

    def depthwise():
        graph = Graph()
        source = graph.input("x", (BATCH, 4, 5, 5), np.float32)
        inputs = [source, graph.constant(weights), graph.constant(np.zeros(4, np.float32))]
        graph.outputs["y"] = graph.add("Conv", inputs, (BATCH, 4, 3, 3), group=4, kernel_shape=[3, 3])
        return graph

    values = (np.arange(1, 5)[None, :, None, None] + generator.random((50, 4, 5, 5))).astype(np.float32)
    wanted = run(depthwise(), {"x": values})["y"]
    seen = observe(depthwise(), {"x": 1}, [{"x": values}])
    errors = []
    for means in ({}, seen):
        graph = depthwise()
        insert(graph, {"x": seen["x"].whole()}, means)
        errors.append(np.abs((run(graph, {"x": values})["y"] - wanted).mean((0, 2, 3))).max())
    assert errors[1] < 0.2 * errors[0]


def test_activations_join_the_product_before_them():
    graph = Graph()
    source = graph.input("x", (BATCH, 2), np.float32)
    weights, bias = np.ones((2, 2), np.float32), np.zeros(2, np.float32)
    first = graph.add("Gemm", [source, graph.constant(weights), graph.constant(bias)], (BATCH, 2))
    active = graph.add("Relu", [first], (BATCH, 2))
    second = graph.add("Gemm", [active, graph.constant(weights), graph.constant(bias)], (BATCH, 2))
    graph.outputs["y"] = graph.add("Softmax", [second], (BATCH, 2), axis=-1)
    assert quantised_tensors(graph) == {"x": -1, active: -1}


@pytest.fixture
def student(tmp_path):
    """A student in the folder of a run on painted faces."""
    config = smkd.default_config()
    config.data.source = "painter"
    config.data.options = {"size": 32, "train": 12, "validation": 8, "test": 2, "seed": 0}
    config.data.split.by_group = False
    config.data.canvas = 32
    (tmp_path / "config.json").write_text(configuration.to_json(config))
    spec = NetworkSpec("basic_cnn", {"width": 2, "size": 32}, {"expression": 8}, {}, Preprocessing(size=32))
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in functional(spec).abstract)
    save_model(tmp_path / "student", spec, params, stats, {"config": configuration.to_json(config)})
    return tmp_path / "student"


def test_an_integer_network_is_smaller_and_says_how_it_was_made(student, tmp_path):
    import onnx

    output = tmp_path / "out" / "model.onnx"
    written = export(student, output, precision="int8", timed=False, accept=True)
    assert written["file"]["calibrated_on"] == "12 examples of the run's training split"
    assert written["check"]["source"] == "the run's validation split"
    assert written["check"]["bound"] is None
    graph = onnx.load(output).graph
    stored = {each.data_type for each in graph.initializer if len(each.dims) > 1}
    assert stored == {onnx.TensorProto.INT8}
    assert "Computes in int8" in (output.parent / "README.md").read_text()


def test_an_integer_network_that_changes_classes_is_refused_unless_accepted(student, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "AGREEMENT", {"int8": 1.01})
    with pytest.raises(InputError, match=r"Nothing was written.*% on 8 examples.*--accept"):
        export(student, tmp_path / "out" / "model.onnx", precision="int8", timed=False)
    assert not (tmp_path / "out").exists()
    export(student, tmp_path / "out" / "model.onnx", precision="int8", timed=False, accept=True)
    stored = json.loads((tmp_path / "out" / "student.json").read_text())
    assert stored["precision"]["exported"] == "int8"


def test_without_a_run_there_is_nothing_to_calibrate_on(student, tmp_path):
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="lies in no run's folder.*--precision=int8"):
        export(student, tmp_path / "out" / "model.onnx", precision="int8", timed=False)
