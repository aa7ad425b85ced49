"""Preprocessing inside an exported graph, before the network.

Pictures are cropped, padded or squashed to a square and resized once, by a triangle filter as wide as the step between
pixels. Evaluation in emokd resizes twice: to the canvas, rounded to uint8, and from there to the network's size. So
values differ a little where a picture is not a square of the canvas's size. [ours]
"""

from collections.abc import Callable, Sequence

import numpy as np

from emokd.data.reference import Reference
from emokd.exporting.graph import BATCH, HEIGHT, SIDE, WIDTH, Graph

Preparation = Callable[[Graph, str], str]
"""(graph, input name) -> the network's input tensor; adds the graph's input and the preprocessing between the two."""


def pixels(fit: str, size: int) -> Preparation:
    """Turns pictures, uint8 [B, H, W, 3], into float32 [B, size, size, 3] with values of 0 to 255.

    Args:
      fit: "crop", "squash" or "pad".
      size: side of the result, pixels.
    """

    def prepare(graph: Graph, name: str) -> str:
        tensor = graph.input(name, (BATCH, HEIGHT, WIDTH, 3), np.uint8)
        if fit == "pad":
            return _padded(graph, tensor, size)
        if fit == "crop":
            tensor = _cropped(graph, tensor)
        return _resized(graph, tensor, _integers(graph, [size, size]), (BATCH, size, size, 3))

    return prepare


def _resized(graph: Graph, tensor: str, sizes: str, shape: tuple[int, ...]) -> str:
    tensor = graph.add("Cast", [tensor], graph.shapes[tensor], np.float32, to=np.float32)
    return graph.add(
        "Resize",
        [tensor, "", "", sizes],
        shape,
        axes=[1, 2],
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        antialias=1,
        exclude_outside=1,
    )


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
    """Crops the largest square in the middle."""
    both, side = _sides(graph, tensor, "ReduceMin")
    start = _halved(graph, both, side)
    end = graph.add("Add", [start, side], (2,), np.int64)
    return graph.add("Slice", [tensor, start, end, _integers(graph, [1, 2])], (BATCH, SIDE, SIDE, 3), np.uint8)


def _padded(graph: Graph, tensor: str, size: int) -> str:
    """Resizes the long side to `size` and centres the picture in a black square; rounds as `data.decode` does."""
    both, side = _sides(graph, tensor, "ReduceMax")
    both, side = (graph.add("Cast", [name], graph.shapes[name], np.float64, to=np.float64) for name in (both, side))
    scale = graph.add("Div", [graph.constant(np.asarray([size], np.float64)), side], (1,), np.float64)
    scaled = graph.add("Round", [graph.add("Mul", [both, scale], (2,), np.float64)], (2,), np.float64)
    scaled = graph.add("Cast", [scaled], (2,), np.int64, to=np.int64)
    scaled = graph.add("Max", [scaled, _integers(graph, [1])], (2,), np.int64)
    tensor = _resized(graph, tensor, scaled, (BATCH, HEIGHT, WIDTH, 3))
    before = _halved(graph, _integers(graph, [size]), scaled)
    after = graph.add("Sub", [_integers(graph, [size]), scaled], (2,), np.int64)
    after = graph.add("Sub", [after, before], (2,), np.int64)
    zero = _integers(graph, [0])
    pads = graph.add("Concat", [zero, before, zero, zero, after, zero], (8,), np.int64, axis=0)
    return graph.add("Pad", [tensor, pads], (BATCH, size, size, 3))


def counted(reference: Reference, shape: Sequence[int]) -> Preparation:
    """Turns raw float64 arrays into float32, relative to the training's centre and unit, see `data.reference`.

    Args:
      reference: the centre and unit.
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
