"""Turns a float32 graph into one that stores and computes in float16; inputs and outputs stay float32.

Numbers beyond float16's range become its largest. ONNX Runtime casts to float32 and back around operators that it has
no float16 kernel for, which on CPUs are most; graphics and phone processors have them. [ours]
"""

import numpy as np

from emokd.exporting.graph import Graph

_LARGEST = np.finfo(np.float16).max
# Of Resize, ONNX wants the regions and scales in float32.
_FLOAT32_INPUTS = {"Resize": (1, 2)}


def to_half(graph: Graph) -> None:
    """Rewrites the graph in place."""
    kept = {
        node.inputs[place]
        for node in graph.nodes
        for place in _FLOAT32_INPUTS.get(node.op, ())
        if place < len(node.inputs) and node.inputs[place]
    }
    named = {*graph.inputs, *kept}
    half = [name for name, dtype in graph.dtypes.items() if dtype == np.float32 and name not in named]
    for name in half:
        graph.dtypes[name] = np.dtype(np.float16)
        if name in graph.constants:
            graph.constants[name] = np.clip(graph.constants[name], -_LARGEST, _LARGEST).astype(np.float16)
    for node in graph.nodes:
        if node.attributes.get("to") == np.float32 and graph.dtypes[node.outputs[0]] == np.float16:
            node.attributes = {**node.attributes, "to": np.float16}
    for name in [name for name in graph.inputs if graph.dtypes[name] == np.float32]:
        readers = list(graph.nodes)
        narrow = graph.add("Cast", [name], graph.shapes[name], np.float16, to=np.float16)
        for node in readers:
            node.inputs = [narrow if each == name else each for each in node.inputs]
    for output, name in list(graph.outputs.items()):
        if graph.dtypes[name] == np.float16:
            graph.outputs[output] = graph.add("Cast", [name], graph.shapes[name], np.float32, to=np.float32)
    graph.sort()
