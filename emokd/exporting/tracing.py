"""Converts a JAX function to a graph: traces it, walks the jaxpr, and rewrites the graph."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import export
from jaxtyping import Array

from emokd.exporting.affine import fold_affine
from emokd.exporting.graph import Graph
from emokd.exporting.layout import channels_first
from emokd.exporting.lowering import lower
from emokd.exporting.patterns import name_operators, simplify
from emokd.exporting.preparation import Preparation
from emokd.exporting.primitives import FUNCTIONS, HANDLERS
from emokd.exporting.walk import Value, Walk
from emokd.models.convolution import plain_convolutions

Inputs = dict[str, Array]


def to_graph(
    function: Callable[[Inputs], Mapping[str, Array]],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    pictures: tuple[str, ...] = (),
    front: Mapping[str, Preparation] | None = None,
) -> Graph:
    """Converts a function of float32 arrays to a graph whose first axis, the batch, has a dynamic size.

    Args:
      function: from a dict of arrays to a dict of arrays.
      shapes: the shape of each input for one example.
      pictures: inputs [H, W, C] that the graph takes as [B, C, H, W].
      front: the preprocessing of inputs, by name; see `preparation`.

    Raises:
      InputError: the function holds a primitive that has no form in ONNX here.
    """
    (batch,) = export.symbolic_shape("batch")
    abstract = {name: jax.ShapeDtypeStruct((batch, *shape), np.float32) for name, shape in shapes.items()}
    with plain_convolutions():
        traced, outputs = jax.make_jaxpr(function, return_shape=True)(abstract)
    graph = Graph()
    walk = Walk(HANDLERS, graph, batch, FUNCTIONS)
    arguments = []
    for name in sorted(shapes):  # the order in which JAX flattens a dict
        shape = abstract[name].shape
        if front and name in front:
            tensor = front[name](graph, name)
        else:
            tensor = graph.input(name, walk.sizes(shape), np.float32)
        arguments.append(Value(shape, shape, np.dtype(np.float32), tensor))
    found = walk.run(traced.jaxpr, traced.consts, arguments)
    for name, value in zip(sorted(outputs), found, strict=True):
        graph.outputs[name] = walk.tensor(walk.whole(value))
    graph.sort()
    name_operators(graph)
    fold_affine(graph)
    channels_first(graph, pictures)
    lower(graph)
    simplify(graph)
    return graph
