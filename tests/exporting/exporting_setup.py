"""Networks with random weights, and graphs run by ONNX Runtime."""

import collections
from collections.abc import Callable, Mapping

import jax
import numpy as np
import pytest
from flax import nnx

from emokd.exporting.graph import Graph
from emokd.exporting.tracing import to_graph
from emokd.exporting.writing import to_model
from emokd.models.network import Functional, Network

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


def random_weights(tree, generator: np.random.Generator):
    """Weights under which activations stay of order one, and no normalisation is the identity."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if "var" in name or "std" in name or "scale" in name:
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan = max(1, int(np.prod(leaf.shape[:-1]))) if "kernel" in name else 100
        return (generator.normal(size=leaf.shape) * np.sqrt(2 / fan)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def features_function(make: Callable[[nnx.Rngs], nnx.Module]) -> Callable:
    """The features of a backbone with random weights, as a function to export."""
    network = Functional(lambda rngs: Network(make(rngs), {}, rngs=rngs))
    generator = np.random.default_rng(0)
    params, stats = (random_weights(tree, generator) for tree in network.abstract)
    return lambda arrays: {"features": network(params, stats, arrays["image"])[0].features}


def run(graph: Graph, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's outputs as ONNX Runtime computes them."""
    from emokd.exporting.session import Session

    return Session(to_model(graph, "0").SerializeToString())(arrays)


def export_and_run(function: Callable, arrays: Mapping[str, np.ndarray], pictures=()) -> tuple[Graph, dict]:
    """The graph of a function, and its outputs for arrays as the function takes them."""
    graph = to_graph(function, {name: values.shape[1:] for name, values in arrays.items()}, pictures=pictures)
    fed = {name: v.transpose(0, 3, 1, 2) if name in pictures else v for name, v in arrays.items()}
    return graph, run(graph, {name: np.ascontiguousarray(values) for name, values in fed.items()})


def operators(graph: Graph) -> dict[str, int]:
    """How many nodes of each kind there are."""
    return dict(collections.Counter(node.op for node in graph.nodes))


def relative(found: np.ndarray, wanted) -> float:
    """The largest difference as a share of the largest value."""
    wanted = np.asarray(wanted)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
