"""Writes a graph as an ONNX model."""

from typing import TYPE_CHECKING, Any

import numpy as np

from emokd.errors import InputError
from emokd.exporting.graph import BATCH, HEIGHT, WIDTH, Graph

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The first ONNX operator set with Gelu; ONNX Runtime reads it from version 1.17 on."""
_IR_VERSION = 9
_FREE: dict[int, str | int] = {BATCH: "batch", HEIGHT: "height", WIDTH: "width"}


def to_model(graph: Graph, producer_version: str, documentation: str = "") -> "onnx.ModelProto":
    """Makes the ONNX model and checks it with ONNX's checker.

    Args:
      graph: with ONNX's operators only.
      producer_version: emokd's version.
      documentation: text stored in the graph.

    Raises:
      InputError: the package onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise InputError(
            f"Exporting needs the package onnx ({error}). Install it: pip install emokd[export]."
        ) from error
    final = {name: output for output, name in graph.outputs.items()}
    fresh = [name for name in final if name not in graph.inputs and name not in graph.constants]
    renamed = {name: final[name] for name in fresh}

    def called(name: str) -> str:
        return renamed.get(name, name)

    nodes = [
        helper.make_node(
            node.op,
            [called(name) for name in node.inputs],
            [called(name) for name in node.outputs],
            name=f"{node.op}_{index}",
            **_attributes(node.attributes),
        )
        for index, node in enumerate(graph.nodes)
    ]
    nodes += [
        helper.make_node("Identity", [called(name)], [output])
        for output, name in graph.outputs.items()
        if called(name) != output
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(array, graph.dtypes[name]).reshape(array.shape), name)
        for name, array in graph.constants.items()
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "student",
            [_described(graph, name, name) for name in graph.inputs],
            [_described(graph, name, output) for output, name in graph.outputs.items()],
            constants,
            doc_string=documentation,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="emokd",
        producer_version=producer_version,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes, with the dtype of a Cast as ONNX's number for it."""
    return {k: _onnx_dtype(value) if k == "to" else value for k, value in attributes.items()}


def _onnx_dtype(dtype: Any) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _described(graph: Graph, name: str, called: str) -> "onnx.ValueInfoProto":
    from onnx import helper

    sizes = [_FREE.get(size, size) for size in graph.shapes[name]]
    return helper.make_tensor_value_info(called, _onnx_dtype(graph.dtypes[name]), sizes)
