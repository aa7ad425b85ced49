"""Replaces the operators Affine, Linear and SumPool by ONNX's."""

import math

import numpy as np

from emokd.exporting.graph import Graph, Node


def lower(graph: Graph) -> None:
    """Replaces every Affine, Linear and SumPool."""
    for node in list(graph.nodes):
        if node.op == "Affine":
            _affine(graph, node)
        elif node.op == "Linear":
            _linear(graph, node)
        elif node.op == "SumPool":
            entries = math.prod(node.attributes["kernel_shape"])
            shape, dtype = graph.shapes[node.outputs[0]], graph.dtypes[node.outputs[0]]
            mean = graph.add("AveragePool", node.inputs, shape, dtype, **node.attributes, count_include_pad=1)
            node.op, node.attributes = "Mul", {}
            node.inputs = [mean, graph.constant(np.asarray(entries), dtype)]
    graph.sort()


def _affine(graph: Graph, node: Node) -> None:
    """Lowers an Affine to BatchNormalization on maps, which runtimes lay out as convolutions, else to Mul and Add."""
    scale, shift, axis = node.attributes["scale"], node.attributes["shift"], node.attributes.get("axis", -1)
    shape = graph.shapes[node.outputs[0]]
    if axis == 1 and (np.ndim(scale) or np.ndim(shift)):
        vectors = [np.broadcast_to(v, shape[1]) for v in (scale, shift, 0.0, 1.0)]
        node.op, node.attributes = "BatchNormalization", {"epsilon": 0.0}
        node.inputs += [graph.constant(vector, np.float32) for vector in vectors]
        return
    steps = [("Mul", scale)] if np.any(scale != 1) else []
    steps += [("Add", shift)] if np.any(shift) or not steps else []
    tail = (-1, *[1] * (len(shape) - 2)) if axis == 1 else (-1,)
    names = [graph.constant(v.reshape(tail) if np.ndim(v) else v, np.float32) for _, v in steps]
    if len(steps) == 2:
        node.inputs = [graph.add("Mul", [*node.inputs, names[0]], shape)]
    node.op, node.attributes = steps[-1][0], {}
    node.inputs = [*node.inputs, names[-1]]


def _linear(graph: Graph, node: Node) -> None:
    source, matrix, bias = node.inputs
    shape, dtype = graph.shapes[node.outputs[0]], graph.dtypes[node.outputs[0]]
    node.attributes = {}
    if not np.any(graph.constants[bias]):
        node.op, node.inputs = "MatMul", [source, matrix]
    elif len(shape) == 2:
        node.op = "Gemm"
    else:
        node.op, node.inputs = "Add", [graph.add("MatMul", [source, matrix], shape, dtype), bias]
