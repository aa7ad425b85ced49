"""Converts the graph from channels last (JAX) to channels first (ONNX), with few transpositions.

Convolutions and pooling require channels first, and elementwise operators after them keep it. Operators that need
JAX's order of axes (matrix products, most reshapes, outputs) require channels last.
"""

from collections.abc import Collection

import numpy as np

from emokd.exporting.graph import Graph, Node

SPATIAL = ("Conv", "MaxPool", "SumPool", "AveragePool", "GlobalAveragePool", "Resize")
ENTRYWISE = (
    "Abs", "Add", "Affine", "Cast", "Clip", "Div", "Erf", "Exp", "Gelu", "IsNaN", "Log", "Max", "Min", "Mul", "Neg",
    "Not", "Pow", "Reciprocal", "Relu", "Rounded", "Sigmoid", "Sqrt", "Sub", "Tanh", "Where",
)  # fmt: skip


def channels_first(graph: Graph, pictures: Collection[str] = ()) -> None:
    """Rewrites the graph in place. An Affine on channels-first maps gets the attribute `axis` = 1.

    Args:
      graph: with sorted nodes.
      pictures: inputs that the graph shall take as [B, C, H, W].
    """
    _Layout(graph, pictures).run()
    graph.sort()


def order(rank: int) -> tuple[int, ...]:
    """The permutation of axes from channels last to channels first."""
    return (0, rank - 1, *range(1, rank - 1))


class _Layout:
    def __init__(self, graph: Graph, pictures: Collection[str]):
        self.graph = graph
        self.nodes: list[Node] = []
        # By the original tensor's name: its channels-first version, where it has one.
        self.first: dict[str, str] = {}
        self.only_first: set[str] = set()
        for name in pictures:
            graph.shapes[name] = self._permuted(graph.shapes[name])
            self.first[name] = name
            self.only_first.add(name)
        self._last: dict[str, str] = {}

    def run(self) -> None:
        nodes, self.graph.nodes = self.graph.nodes, self.nodes
        for node in nodes:
            if not self._channels_first(node):
                node.inputs = [self.last(name) for name in node.inputs]
                self.nodes.append(node)
        self.graph.outputs = {output: self.last(name) for output, name in self.graph.outputs.items()}

    def _permuted(self, values):
        return tuple(values[axis] for axis in order(len(values)))

    def last(self, name: str) -> str:
        """The tensor with channels last; transposes it where only a channels-first version exists."""
        if name not in self.only_first:
            return name
        if name not in self._last:
            first = self.first[name]
            shape = self.graph.shapes[first]
            self._last[name] = self._moved(first, (0, *range(2, len(shape)), 1))
        return self._last[name]

    def to_first(self, name: str) -> str:
        """The tensor with channels first; transposes it where there is no such version yet."""
        if name not in self.first:
            perm = order(len(self.graph.shapes[name]))
            if name in self.graph.constants:
                self.first[name] = self.graph.constant(self.graph.constants[name].transpose(perm))
            else:
                self.first[name] = self._moved(name, perm)
        return self.first[name]

    def _moved(self, name: str, perm: tuple[int, ...]) -> str:
        """Adds a transposition, or a reshape where only axes of size 1 change places with others."""
        graph = self.graph
        shape = [graph.shapes[name][axis] for axis in perm]
        large = [axis for axis in perm if graph.shapes[name][axis] != 1]
        if large == sorted(large):
            target = graph.constant(np.asarray(shape, np.int64))
            return graph.add("Reshape", [name, target], shape, graph.dtypes[name])
        return graph.add("Transpose", [name], shape, graph.dtypes[name], perm=list(perm))

    def _is_first(self, name: str) -> bool:
        return name in self.first and name not in self.graph.constants

    def _channels_first(self, node: Node) -> bool:
        """Adds the node in its channels-first form and returns True, where it has one that saves a transposition."""
        rank = len(self.graph.shapes[node.outputs[0]])
        source = node.inputs[0] if node.inputs else ""
        if node.op in SPATIAL:
            if "axes" in node.attributes:
                node.attributes["axes"] = [order(rank).index(axis) for axis in node.attributes["axes"]]
            elif node.op == "Resize":
                scales = self.graph.constants[node.inputs[2]]
                node.inputs[2] = self.graph.constant(np.asarray(self._permuted(scales)))
            node.inputs[0] = self.to_first(source)
            self._emit_first(node)
        elif node.op in ENTRYWISE and rank > 2 and any(map(self._is_first, node.inputs)):
            if any(len(self.graph.shapes[n]) not in (0, rank) for n in node.inputs if n):
                return False
            node.inputs = [self.to_first(n) if len(self.graph.shapes[n]) == rank else n for n in node.inputs]
            if node.op == "Affine":
                node.attributes["axis"] = 1
            self._emit_first(node)
        elif node.op == "Concat" and rank > 2 and any(map(self._is_first, node.inputs)):
            node.inputs = [self.to_first(name) for name in node.inputs]
            node.attributes["axis"] = order(rank).index(node.attributes["axis"])
            self._emit_first(node)
        elif source in self.only_first:
            return self._follow(node, source)
        else:
            return False
        return True

    def _follow(self, node: Node, source: str) -> bool:
        """Adds a node that names axes (transpose, reduce, slice, pad) on a channels-first input; False for others."""
        graph, first = self.graph, self.first[source]
        rank = len(graph.shapes[first])
        perm = order(rank)
        if node.op == "Transpose":
            node.attributes["perm"] = [perm.index(axis) for axis in node.attributes["perm"]]
            node.inputs[0] = first
            self.nodes.append(node)
            return True
        if node.op.startswith("Reduce"):
            axes = [int(axis) for axis in graph.constants[node.inputs[1]]]
            moved = graph.constant(np.asarray(sorted(perm.index(axis) for axis in axes), np.int64))
            rest = [axis for axis in perm if axis not in axes]
            if not node.attributes["keepdims"] and rest != sorted(rest):
                return False
            node.inputs = [first, moved]
            if node.attributes["keepdims"]:
                self._emit_first(node)
            else:
                self.nodes.append(node)
            return True
        if node.op == "Slice":
            sliced = graph.constants[node.inputs[3]]
            node.inputs[3] = graph.constant(np.asarray([perm.index(int(axis)) for axis in sliced], np.int64))
        elif node.op == "Pad" and node.inputs[1] in graph.constants:
            pads = graph.constants[node.inputs[1]].reshape(2, rank)
            node.inputs[1] = graph.constant(pads[:, list(perm)].reshape(-1))
        else:
            return False
        node.inputs[0] = first
        self._emit_first(node)
        return True

    def _emit_first(self, node: Node) -> None:
        """Adds a node whose output has channels first."""
        (name,) = node.outputs
        moved = self.graph.tensor(self._permuted(self.graph.shapes[name]), self.graph.dtypes[name])
        node.outputs = [moved]
        self.first[name] = moved
        self.only_first.add(name)
        self.nodes.append(node)
