"""Convolutions and matrix products."""

import string
from collections.abc import Mapping

import numpy as np
from jax.extend import core

from emokd.exporting.walk import Handler, Value, Walk


def _convolution(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    params, output = equation.params, equation.outvars[0].aval
    value, kernel = walk.whole(inputs[0]), inputs[1]
    numbers, rank = params["dimension_numbers"], len(output.shape)
    last = (0, rank - 1, *range(1, rank - 1))
    if kernel.array is None or any(d != 1 for d in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise walk.unknown(equation, "is transposed, or has weights that are computed")
    if (numbers.lhs_spec, numbers.out_spec) != (last, last):
        raise walk.unknown(equation, "does not have its channels last")
    weights = kernel.array.transpose(numbers.rhs_spec)  # [O, I / groups, ...]
    bias = np.zeros(weights.shape[0], weights.dtype)
    pads = params["padding"]
    return walk.emit(
        "Conv",
        [value, walk.graph.constant(weights), walk.graph.constant(bias)],
        output.shape,
        output.dtype,
        kernel_shape=list(weights.shape[2:]),
        strides=list(params["window_strides"]),
        pads=[low for low, _ in pads] + [high for _, high in pads],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )


def _dot(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    """Adds Linear where the right side is a constant matrix, MatMul where the axes allow it, else Einsum."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = map(walk.whole, inputs)
    output = equation.outvars[0].aval
    if right.array is not None and not left_batch and left_sum == (len(left.shape) - 1,):
        matrix = np.moveaxis(right.array, right_sum[0], 0)
        if matrix.ndim == 2 and len(left.shape) > 1:
            names = [walk.graph.constant(matrix), walk.graph.constant(np.zeros(matrix.shape[1], matrix.dtype))]
            return walk.emit("Linear", [left, *names], output.shape, output.dtype)
    letters = iter(string.ascii_lowercase)
    a = [next(letters) for _ in left.shape]
    b = [next(letters) for _ in right.shape]
    for mine, other in ((left_sum, right_sum), (left_batch, right_batch)):
        for i, j in zip(mine, other, strict=True):
            b[j] = a[i]
    free = [a[i] for i in range(len(a)) if i not in (*left_sum, *left_batch)]
    free += [b[j] for j in range(len(b)) if j not in (*right_sum, *right_batch)]
    result = [a[i] for i in left_batch] + free
    if len(left_sum) == 1 and len(a) == len(b) == len(left_batch) + 2:
        (row,) = [i for i in range(len(a)) if i not in (*left_sum, *left_batch)]
        (column,) = [j for j in range(len(b)) if j not in (*right_sum, *right_batch)]
        left = _transposed(walk, left, [*left_batch, row, left_sum[0]])
        right = _transposed(walk, right, [*right_batch, right_sum[0], column])
        return walk.emit("MatMul", [left, right], output.shape, output.dtype)
    text = f"{''.join(a)},{''.join(b)}->{''.join(result)}"
    return walk.emit("Einsum", [left, right], output.shape, output.dtype, equation=text)


def _transposed(walk: Walk, value: Value, order: list[int]) -> Value:
    if order == sorted(order):
        return value
    shape = tuple(value.shape[axis] for axis in order)
    return walk.emit("Transpose", [value], shape, value.dtype, perm=order)


HANDLERS: Mapping[str, Handler] = {"conv_general_dilated": _convolution, "dot_general": _dot}
