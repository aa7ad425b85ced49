"""What an exported graph does to its inputs before the network.

Pictures are cropped, padded or squashed to a square and resized once, by a triangle filter as wide as the step between
pixels. Evaluation resamples twice, to the canvas in whole numbers and from there to the network's size, so values
differ a little where a picture is no square of the canvas's size. [ours]
"""

from collections.abc import Callable, Sequence

import numpy as np

from emokd.data.reference import Reference
from emokd.exporting.graph import BATCH, HEIGHT, SIDE, WIDTH, Graph

Preparation = Callable[[Graph, str], str]
"""Adds an input of its own to the graph, and gives what the network is given for it."""


def pixels(fit: str, size: int) -> Preparation:
    """Pictures, uint8 [B, H, W, 3], as float32 [B, size, size, 3] of 0 to 255.

    Args:
      fit: "crop", "squash" or "pad".
      size: side of the result.
    """

    def prepare(graph: Graph, name: str) -> str:
        tensor = graph.input(name, (BATCH, HEIGHT, WIDTH, 3), np.uint8)
        if fit != "squash":
            tensor = (_cropped if fit == "crop" else _padded)(graph, tensor)
        shape = graph.shapes[tensor]
        tensor = graph.add("Cast", [tensor], shape, np.float32, to=np.float32)
        return graph.add(
            "Resize",
            [tensor, "", "", _integers(graph, [size, size])],
            (BATCH, size, size, 3),
            axes=[1, 2],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            antialias=1,
            exclude_outside=1,
        )

    return prepare


def _integers(graph: Graph, values: Sequence[int]) -> str:
    return graph.constant(np.asarray(values, np.int64))


def _sides(graph: Graph, tensor: str, reduction: str) -> tuple[str, str]:
    """Height and width as a tensor [2], and their minimum or maximum as one [1]."""
    both = graph.add("Shape", [tensor], (2,), np.int64, start=1, end=3)
    return both, graph.add(reduction, [both, _integers(graph, [0])], (1,), np.int64, keepdims=1)


def _halved(graph: Graph, larger: str, smaller: str) -> str:
    """Half the difference, rounded down."""
    difference = graph.add("Sub", [larger, smaller], (2,), np.int64)
    return graph.add("Div", [difference, _integers(graph, [2])], (2,), np.int64)


def _cropped(graph: Graph, tensor: str) -> str:
    """The square in the middle."""
    both, side = _sides(graph, tensor, "ReduceMin")
    start = _halved(graph, both, side)
    end = graph.add("Add", [start, side], (2,), np.int64)
    return graph.add("Slice", [tensor, start, end, _integers(graph, [1, 2])], (BATCH, SIDE, SIDE, 3), np.uint8)


def _padded(graph: Graph, tensor: str) -> str:
    """The picture in the middle of a black square."""
    both, side = _sides(graph, tensor, "ReduceMax")
    before = _halved(graph, side, both)
    missing = graph.add("Sub", [side, both], (2,), np.int64)
    after = graph.add("Sub", [missing, before], (2,), np.int64)
    zero = _integers(graph, [0])
    pads = graph.add("Concat", [zero, before, zero, zero, after, zero], (8,), np.int64, axis=0)
    return graph.add("Pad", [tensor, pads], (BATCH, SIDE, SIDE, 3), np.uint8)


def counted(reference: Reference, shape: Sequence[int]) -> Preparation:
    """Arrays, float64 as they come, as float32 counted from the training examples' centre, see `data.reference`.

    Args:
      reference: centre and unit.
      shape: of one example.
    """

    def prepare(graph: Graph, name: str) -> str:
        full = (BATCH, *shape)
        tensor = graph.input(name, full, np.float64)
        inverse = np.divide(1.0, reference.unit, out=np.zeros_like(reference.unit), where=reference.unit > 0)
        tensor = graph.add("Sub", [tensor, graph.constant(reference.centre)], full, np.float64)
        tensor = graph.add("Mul", [tensor, graph.constant(inverse)], full, np.float64)
        return graph.add("Cast", [tensor], full, np.float32, to=np.float32)

    return prepare
