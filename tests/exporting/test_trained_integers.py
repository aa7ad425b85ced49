"""What a quantised network computes in JAX is what its exported integers compute in ONNX Runtime."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting_setup import operators, random_weights, run

from emokd.exporting.quantisation import is_trained, write_trained
from emokd.exporting.student import Student, create_function, create_graph
from emokd.models.network import NetworkSpec, TrainedModel, functional, in_floating_point
from emokd.models.preprocessing import Preprocessing
from emokd.models.rounding import taking_ranges
from emokd.weights.seen_as import SeenAs

SEEN_AS = SeenAs(32, "crop", "landmarks")
NETWORKS = {
    "basic_cnn": {"width": 4, "size": 32},
    "mobilenet_v2": {"width": 0.1, "size": 32},
    "resnet18": {},
}

BOUNDS = {"basic_cnn": 1e-3, "mobilenet_v2": 1e-3, "resnet18": 0.1}
"""The largest mean difference from ONNX Runtime, as a share of that of the network in floating point."""


def calmed(path, leaf):
    """Branches that add little, as after training: at random ones a sum's last digit decides about answers.

    ONNX Runtime adds integers, JAX floating-point numbers. And heads whose answers are neither clipped nor certain.
    """
    name = jax.tree_util.keystr(path)
    branch = "units" in name and "[1]" in name.split("units")[1] and "'scale'" in name
    return leaf * np.float32(0.1) if branch or ("heads" in name and "kernel" in name) else leaf


def quantised(backbone, side=32):
    """A model with random weights, and ranges of random pictures; and these pictures."""
    spec = NetworkSpec(
        backbone,
        NETWORKS[backbone],
        {"expression": 7, "valence_arousal": 2},
        preprocessing=Preprocessing(side),
        quantized=True,
    )
    generator = np.random.default_rng(0)
    network = functional(spec)
    params, stats = (random_weights(tree, generator) for tree in network.abstract)
    pictures = generator.normal(size=(16, side, side, 3)).astype(np.float32)

    @jax.jit
    def ranges(params, stats, pictures):
        with taking_ranges(None) as seen:
            network(params, stats, pictures, integers=False)
        return jnp.stack(seen)

    params = jax.tree_util.tree_map_with_path(calmed, params)
    stats = {**stats, "ranges": np.asarray(ranges(params, stats, pictures))}
    return TrainedModel(spec, params, stats, "random"), pictures


def outputs(model, pictures):
    """What JAX computes; weights are arguments, because XLA would spend seconds on computing with constants."""

    @jax.jit
    def function(params, stats, pictures):
        weights = dataclasses.replace(model, params=params, stats=stats)
        return create_function(Student(weights, SEEN_AS))({"image": pictures})

    return jax.device_get(function(model.params, model.stats, pictures))


@pytest.mark.parametrize(
    "backbone",
    [
        "basic_cnn",
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_computes_the_simulated_integers(backbone):
    model, pictures = quantised(backbone)
    graph = create_graph(Student(model, SEEN_AS))
    assert is_trained(graph)
    write_trained(graph)
    kinds = operators(graph)
    stored = [graph.dtypes[name] for name, array in graph.constants.items() if array.ndim > 1]
    assert set(stored) <= {np.dtype(np.int8)}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= set(kinds) and "Rounded" not in kinds
    found = run(graph, {"image": np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))})
    simulated, floating = outputs(model, pictures), outputs(in_floating_point(model), pictures)
    for name in simulated:
        close, far = (np.abs(found[name] - other[name]).mean() for other in (simulated, floating))
        assert close < BOUNDS[backbone] * far
