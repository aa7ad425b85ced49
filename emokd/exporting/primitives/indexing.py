"""Gathers at constant indices: slices and columns, which JAX traces as gathers where the batch size is symbolic."""

from collections.abc import Mapping

import numpy as np
from jax.extend import core

from emokd.exporting.primitives.shapes import cut
from emokd.exporting.walk import Handler, Value, Walk


def _gather(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, index = walk.whole(inputs[0]), inputs[1]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    output, axes = equation.outvars[0].aval, numbers.start_index_map
    if index.array is None or numbers.operand_batching_dims:
        raise walk.unknown(equation, "looks up places that only the input knows")
    places = index.array.reshape(*index.array.shape[:-1], len(axes))
    if places.ndim == 1:  # one block
        ranges = {
            axis: (int(start), int(start) + int(sizes[axis]), 1) for axis, start in zip(axes, places, strict=True)
        }
        shape = tuple(sizes[axis] if axis in ranges else size for axis, size in enumerate(value.shape))
        return walk.reshape(cut(walk, value, shape, ranges), output.shape)
    columns = {axis: places[..., i] for i, axis in enumerate(axes)}
    # Axes along which every index takes the same block are sliced first.
    fixed = {
        axis: (int(column.flat[0]), int(column.flat[0]) + int(sizes[axis]), 1)
        for axis, column in columns.items()
        if axis not in numbers.collapsed_slice_dims and (column == column.flat[0]).all()
    }
    looked_up = [axis for axis in axes if axis not in fixed]
    shape = tuple(sizes[axis] if axis in fixed else size for axis, size in enumerate(value.shape))
    whole = all(sizes[axis] == size for axis, size in enumerate(shape) if axis not in looked_up)
    if len(looked_up) != 1 or list(numbers.collapsed_slice_dims) != looked_up or not whole:
        raise walk.unknown(equation, "looks up blocks at several places")
    value = cut(walk, value, shape, fixed)
    (axis,) = looked_up
    places = columns[axis]
    inserted = [d for d in range(len(output.shape)) if d not in numbers.offset_dims]
    if inserted != list(range(axis, axis + places.ndim)):
        raise walk.unknown(equation, "moves the axis of what it looks up")
    if places.ndim == 1 and len(places) > 1:
        step = int(places[1]) - int(places[0])
        if step > 0 and (np.diff(places) == step).all():
            ranges = {axis: (int(places[0]), int(places[-1]) + 1, step)}
            return cut(walk, value, output.shape, ranges)
    indices = walk.graph.constant(places.astype(np.int64))
    return walk.emit("Gather", [value, indices], output.shape, output.dtype, axis=axis)


HANDLERS: Mapping[str, Handler] = {"gather": _gather}
