"""Turns a float32 graph into one of 8-bit integers, by QuantizeLinear and DequantizeLinear around its operators.

Weights are int8, symmetric, with a scale for each output channel; activations uint8 with one scale and zero point for
each tensor (Jacob et al. 2018, arXiv:1712.05877). What rounding the weights adds to the mean of a channel is taken off
its bias (Nagel et al. 2019, arXiv:1906.04721, section 4.2). Softmax, layer normalisation and products of two
activations stay in float32. Ranges are those of what was seen or those of the smallest squared error, whichever keep
more first classes of the calibration examples. [ours]

A network that has learnt to compute in integers (`models.rounding`) is written as it was simulated: its graph says
where activations are rounded and how, and its weights are those that integers hold already.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from emokd.errors import InputError
from emokd.exporting.feeding import feeds
from emokd.exporting.graph import Graph, Node
from emokd.exporting.ranges import Seen, Step, observe
from emokd.exporting.session import Session
from emokd.exporting.student import Student
from emokd.exporting.writing import to_model
from emokd.inference.signature import AFFECT
from emokd.models.rounding import BIAS_LEVELS, WEIGHT_LEVELS

Batch = Mapping[str, Shaped[np.ndarray, "B ..."]]

PRODUCTS: Mapping[str, int] = {"Conv": 0, "Gemm": 1, "MatMul": 1}
"""Operators with a constant second input, and the axis of that input's output channels."""
FOLLOWERS = ("Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Operators that compute in integers where their inputs come from products."""
ROUNDED = "Rounded"
"""The operator by which a traced network says that a tensor goes through integers."""
_ACTIVATIONS = ("Relu", "Clip")
_KINDS = {"weights": "int8, symmetric, by output channel", "activations": "uint8, affine, by tensor"}
_BATCH = 32


def quantise(graph: Graph, student: Student, calibration: Batch) -> dict[str, Any]:
    """Rewrites the graph in place, and says how in words for `student.json`.

    Args:
      graph: in float32, as it would be written.
      student: the model that the graph computes.
      calibration: examples, as `inference.forward.create_forward` takes them.

    Raises:
      InputError: the network has no convolution nor matrix product.
    """
    count = len(next(iter(calibration.values())))
    batches = [
        feeds(student, {name: values[start : start + _BATCH] for name, values in calibration.items()})
        for start in range(0, count, _BATCH)
    ]
    tensors = quantised_tensors(graph)
    if not tensors:
        raise InputError("The network has nothing that integers would compute: no convolution and no matrix product.")
    seen = observe(graph, tensors, batches)
    wanted = _outputs(graph, batches)
    best: tuple[tuple[float, float], str, Graph] | None = None
    for ranges in ("whole", "closest"):
        candidate = copy.deepcopy(graph)
        insert(candidate, {name: getattr(record, ranges)() for name, record in seen.items()}, seen)
        quality = _quality(wanted, _outputs(candidate, batches))
        logging.info("int8 with %s ranges: %.1f%% of first classes kept", ranges, 100 * quality[0])
        if best is None or quality > best[0]:
            best = quality, ranges, candidate
    assert best is not None
    quality, ranges, candidate = best
    vars(graph).update(vars(candidate))
    return {
        **_KINDS,
        "calibrated_on": f"{count} examples of the run's training split",
        "same_first_class_in_calibration": quality[0],
        "ranges": ranges,
    }


def is_trained(graph: Graph) -> bool:
    """Whether the graph is that of a network that has learnt to compute in integers."""
    return any(node.op == ROUNDED for node in graph.nodes)


def write_trained(graph: Graph) -> dict[str, Any]:
    """Rewrites the graph of such a network in place, and says how in words for `student.json`."""
    producers = graph.producers()
    steps: dict[int, Step] = {}
    for node in list(graph.nodes):
        if _is_product(graph, node):
            source = producers.get(node.inputs[0])
            assert source is not None and source.op == ROUNDED, "a product reads what is not rounded"
            steps[id(node)] = Step(source.attributes["scale"], source.attributes["zero"])
    for node in list(graph.nodes):
        if id(node) in steps:
            _quantise_product(graph, node, steps[id(node)], None)
    for node in list(graph.nodes):
        if node.op == ROUNDED:
            step = Step(node.attributes["scale"], node.attributes["zero"])
            node.op, node.inputs, node.attributes = "DequantizeLinear", _integers(graph, node.inputs[0], step), {}
    graph.sort()
    return {**_KINDS, "ranges": "those that the network was trained with"}


def _integers(graph: Graph, name: str, step: Step) -> list[str]:
    """Adds a tensor's integers; returns what DequantizeLinear reads."""
    scale = graph.constant(np.asarray(step.scale, np.float32))
    zero = graph.constant(np.asarray(step.zero, np.uint8))
    return [graph.add("QuantizeLinear", [name, scale, zero], graph.shapes[name], np.uint8), scale, zero]


def _outputs(graph: Graph, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """The outputs of all examples by name."""
    session = Session(to_model(graph, "0").SerializeToString())
    found = [session(batch) for batch in batches]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _quality(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The share of equal first classes, and the mean difference of all outputs with its sign turned."""
    classifying = [name for name in wanted if name != AFFECT]
    same = [float((wanted[name].argmax(-1) == found[name].argmax(-1)).mean()) for name in classifying]
    return min(same, default=1.0), -sum(float(np.abs(wanted[name] - found[name]).mean()) for name in wanted)


def quantised_tensors(graph: Graph) -> dict[str, int]:
    """The activations that become integers, in the graph's order, with the axis of their channels."""
    users = graph.users()
    found: dict[str, int] = {}
    downstream: set[str] = set()
    computing: set[int] = set()
    for node in graph.nodes:
        activations = [name for name in node.inputs if name and name not in graph.constants]
        follows = bool(downstream.intersection(activations))
        if _is_product(graph, node) or (follows and _is_follower(graph, node)):
            computing.add(id(node))
        if follows or _is_product(graph, node):
            downstream.update(node.outputs)
    for node in graph.nodes:
        if id(node) not in computing:
            continue
        product = _is_product(graph, node)
        for name in node.inputs:
            if product and name == node.inputs[0]:
                found[name] = 1 if node.op == "Conv" else -1
            elif name and name not in graph.constants:
                found.setdefault(name, -1)
        output = node.outputs[0]
        while len(users[output]) == 1 and users[output][0].op in _ACTIVATIONS:
            output = users[output][0].outputs[0]
        if any(id(user) in computing for user in users[output]):
            found.setdefault(output, -1)
    return found


def _is_product(graph: Graph, node: Node) -> bool:
    if node.op not in PRODUCTS or graph.dtypes[node.inputs[0]] != np.float32:
        return False
    weights = graph.constants.get(node.inputs[1])
    return weights is not None and (node.op == "Conv" or weights.ndim == 2)


def _is_follower(graph: Graph, node: Node) -> bool:
    if node.op not in FOLLOWERS or graph.dtypes[node.outputs[0]] != np.float32:
        return False
    return all(name not in graph.constants for name in node.inputs)


def insert(graph: Graph, steps: Mapping[str, Step], seen: Mapping[str, Seen]) -> None:
    """Puts weights and activations through integers.

    Args:
      graph: rewritten in place.
      steps: of the activations to quantise, by tensor.
      seen: the activations' means, to correct biases by; empty to leave biases as they are.
    """
    nodes, rounded = list(graph.nodes), dict[str, str]()
    for name, step in steps.items():
        rounded[name] = graph.add("DequantizeLinear", _integers(graph, name, step), graph.shapes[name])
    for node in nodes:
        if _is_product(graph, node) and node.inputs[0] in steps:
            _quantise_product(graph, node, steps[node.inputs[0]], seen.get(node.inputs[0]))
        node.inputs = [rounded.get(name, name) for name in node.inputs]
    graph.sort()


def _quantise_product(graph: Graph, node: Node, step: Step, seen: Seen | None) -> None:
    axis = PRODUCTS[node.op]
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales = np.abs(weights).max(others) / WEIGHT_LEVELS
    bias = graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else None
    if bias is not None:  # the bias has the scale of the products, and has to fit into int32
        scales = np.maximum(scales, np.abs(bias) / (step.scale * BIAS_LEVELS))
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    integers = np.clip(np.rint(weights / scales.reshape(shape)), -WEIGHT_LEVELS, WEIGHT_LEVELS)
    node.inputs[1] = _dequantised(graph, integers.astype(np.int8), scales, axis)
    if bias is None:
        return
    if seen is not None:
        bias = bias - _mean_added(node, integers * scales.reshape(shape) - weights, seen.means)
    products = (scales.astype(np.float64) * step.scale).astype(np.float32)
    node.inputs[2] = _dequantised(graph, np.rint(bias / products).astype(np.int32), products, 0)


def _mean_added(node: Node, errors: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The mean of the product of the weights' errors and the inputs, by output channel, as if nothing were padded."""
    if node.op != "Conv":
        return means @ errors
    by_input = errors.reshape(*errors.shape[:2], -1).sum(-1)
    groups = node.attributes.get("group", 1)
    of_output = np.arange(len(errors)) // (len(errors) // groups)
    return (by_input * means.reshape(groups, -1)[of_output]).sum(1)


def _dequantised(graph: Graph, integers: np.ndarray, scales: np.ndarray, axis: int) -> str:
    inputs = [graph.constant(each) for each in (integers, scales, np.zeros(scales.shape, integers.dtype))]
    return graph.add("DequantizeLinear", inputs, integers.shape, axis=axis)
