"""The export's intermediate graph: ONNX operators on named tensors, channels last until `layout` has run.

Three operators are not ONNX's, and `lowering` replaces them before the graph is written: `Affine` (scale and shift of
the last axis, as attributes), `Linear` (a product with a constant matrix, plus a bias) and `SumPool`. A fourth one,
`Rounded` (through uint8 and back, with `scale` and `zero` as attributes), is replaced by `quantisation`. [ours]
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

BATCH, HEIGHT, WIDTH, SIDE = -1, -2, -3, -4
"""Placeholders in shapes for dynamic sizes: one that depends on the batch, and those of input pictures."""

Shape = tuple[int, ...]


@dataclasses.dataclass(eq=False)
class Node:
    """One operator.

    Attributes:
      op: its name in ONNX, or `Affine`, `Linear`, `SumPool` or `Rounded`.
      inputs: names of tensors.
      outputs: names of tensors.
      attributes: the operator's attributes in ONNX.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


class Graph:
    """Nodes, constants, and the shape and dtype of every tensor.

    Attributes:
      nodes: in any order; `sort` orders them.
      constants: arrays by tensor name.
      shapes: by tensor name; dynamic sizes are the negative placeholders.
      dtypes: by tensor name.
      inputs: names of the inputs.
      outputs: the tensor of each output, by the output's name.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.inputs: list[str] = []
        self.outputs: dict[str, str] = {}
        self._count = 0

    def tensor(self, shape: Sequence[int], dtype: Any, name: str = "") -> str:
        """Adds a tensor and returns its name, which is generated where none is given."""
        if not name:
            self._count += 1
            name = f"t.{self._count}"
        self.shapes[name], self.dtypes[name] = tuple(shape), np.dtype(dtype)
        return name

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> str:
        """Adds an input and returns its name."""
        self.inputs.append(name)
        return self.tensor(shape, dtype, name)

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Adds a constant and returns its name; it is written in `dtype`, by default the array's."""
        array = np.asarray(array)
        name = self.tensor(array.shape, dtype or array.dtype)
        self.constants[name] = array
        return name

    def add(self, op: str, inputs: Sequence[str], shape: Sequence[int], dtype: Any = np.float32, **attributes) -> str:
        """Adds an operator with one output, and returns the output's name."""
        output = self.tensor(shape, dtype)
        self.nodes.append(Node(op, list(inputs), [output], attributes))
        return output

    def producers(self) -> dict[str, Node]:
        """The node that computes each tensor, by the tensor's name."""
        return {output: node for node in self.nodes for output in node.outputs}

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor; a node that reads it twice is listed twice."""
        found: dict[str, list[Node]] = collections.defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found

    def replace(self, old: str, new: str) -> None:
        """Makes all readers of tensor `old` read `new` instead."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = {output: new if name == old else name for output, name in self.outputs.items()}

    def scalar(self, name: str) -> float | None:
        """The value of a constant with a single entry; None for any other tensor."""
        array = self.constants.get(name)
        return array.item() if array is not None and array.size == 1 else None

    def sort(self) -> None:
        """Sorts the nodes topologically and removes those that no output needs."""
        producers = self.producers()
        ordered: list[Node] = []
        state: dict[int, bool] = {}  # by id of the node: True where it is placed, False where it is only visited
        stack = [producers[name] for name in reversed(self.outputs.values()) if name in producers]
        while stack:
            node = stack[-1]
            if id(node) in state:
                stack.pop()
                if not state[id(node)]:
                    state[id(node)] = True
                    ordered.append(node)
                continue
            state[id(node)] = False
            stack += [producers[n] for n in reversed(node.inputs) if n in producers and id(producers[n]) not in state]
        self.nodes = ordered
        read = {name for node in ordered for name in node.inputs} | set(self.outputs.values())
        self.constants = {name: array for name, array in self.constants.items() if name in read}
