"""Primitives that rearrange entries without changing their values."""

from collections.abc import Mapping

import numpy as np
from jax.extend import core

from emokd.exporting.walk import Handler, Value, Walk, constant


def _reshape(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    (value,), shape = inputs, tuple(equation.outvars[0].aval.shape)
    repeats = _repeats(value, shape)
    if repeats is not None:
        small = walk.reshape(Value(value.held, value.held, value.dtype, value.name, value.array), repeats[0])
        scales = walk.graph.constant(np.asarray(repeats[1], np.float32))
        return walk.emit(
            "Resize", [small, "", scales], shape, value.dtype, mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip
    held = [size for size in value.held if size != 1]
    if held == [size for size in shape if size != 1]:  # only axes of size 1 change, so broadcasts stay deferred
        return _respaced(walk, value, shape)
    return walk.reshape(value, shape)


def _respaced(walk: Walk, value: Value, shape: tuple) -> Value:
    return walk.reshape(Value(value.held, value.held, value.dtype, value.name, value.array), shape)


def _repeats(value: Value, shape: tuple) -> tuple[tuple, list[float]] | None:
    """The map and the scales, where [B, H, h, W, w, C], equal along h and w, becomes [B, H * h, W * w, C]."""
    if len(value.shape) != 6 or value.array is not None or len(shape) != 4:
        return None
    batch, height, h, width, w, channels = value.shape
    if value.held != (batch, height, 1, width, 1, channels) or shape != (batch, height * h, width * w, channels):
        return None
    return (batch, height, width, channels), [1, h, w, 1]


def _broadcast(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, shape = inputs[0], tuple(equation.outvars[0].aval.shape)
    axes = equation.params["broadcast_dimensions"]
    held = [1] * len(shape)
    for axis, size in zip(axes, value.held, strict=True):
        held[axis] = size
    small = walk.reshape(Value(value.held, value.held, value.dtype, value.name, value.array), held)
    return Value(shape, tuple(held), value.dtype, small.name, small.array)


def _transpose(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    (value,), order = inputs, equation.params["permutation"]
    shape, held = (tuple(sizes[axis] for axis in order) for sizes in (value.shape, value.held))
    return walk.emit("Transpose", [value], shape, value.dtype, held, perm=list(order))


def _concatenate(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    output = equation.outvars[0].aval
    return walk.emit(
        "Concat", list(map(walk.whole, inputs)), output.shape, output.dtype, axis=equation.params["dimension"]
    )


def _stack(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    axis, output = equation.params["axis"], equation.outvars[0].aval
    single = (*output.shape[:axis], 1, *output.shape[axis + 1 :])
    parts = [walk.reshape(value, single) for value in inputs]
    return walk.emit("Concat", parts, output.shape, output.dtype, axis=axis)


def _split(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    value, axis = walk.whole(inputs[0]), equation.params["axis"]
    outputs, start = [], 0
    for variable, size in zip(equation.outvars, equation.params["sizes"], strict=True):
        outputs.append(cut(walk, value, variable.aval.shape, {axis: (start, start + size, 1)}))
        start += size
    return outputs


def cut(walk: Walk, value: Value, shape: tuple, ranges: Mapping[int, tuple[int, int, int]]) -> Value:
    """Adds a Slice from start to end in steps, along some axes of a value without deferred broadcasts."""
    if not ranges:
        return value
    starts, ends, steps = (walk.integers(column) for column in zip(*ranges.values(), strict=True))
    return walk.emit("Slice", [value, starts, ends, walk.integers(list(ranges)), steps], shape, value.dtype)


def _slice(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, params = walk.whole(inputs[0]), equation.params
    steps = params["strides"] or (1,) * len(value.shape)
    ranges = {
        axis: (int(start), int(end), int(step))
        for axis, (start, end, step) in enumerate(
            zip(params["start_indices"], params["limit_indices"], steps, strict=True)
        )
        if not (start == 0 and end == value.shape[axis] and step == 1)
    }
    return cut(walk, value, equation.outvars[0].aval.shape, ranges)


def _reverse(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value = walk.whole(inputs[0])
    ranges = {axis: (-1, np.iinfo(np.int64).min, -1) for axis in equation.params["dimensions"]}
    return cut(walk, value, value.shape, ranges)


def _pad(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, filling = walk.whole(inputs[0]), inputs[1]
    sides = equation.params["padding_config"]
    if any(inner for _, _, inner in sides) or filling.array is None:
        raise walk.unknown(equation, "pads between entries, or with what is not known")
    output = equation.outvars[0].aval
    pads = walk.integers([int(low) for low, _, _ in sides] + [int(high) for _, high, _ in sides])
    return walk.emit("Pad", [value, pads, constant(filling.array.astype(value.dtype))], output.shape, output.dtype)


HANDLERS: Mapping[str, Handler] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "expand_dims": _reshape,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}
