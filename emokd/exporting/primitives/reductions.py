"""Reductions over axes: sums, maxima and the like."""

from collections.abc import Mapping

import numpy as np
from jax.extend import core

from emokd.exporting.walk import Handler, Value, Walk

NAMES = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}
LOGICAL = {"reduce_and": "ReduceMin", "reduce_or": "ReduceMax"}


def _reduce(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, output = walk.whole(inputs[0]), equation.outvars[0].aval
    axes = walk.integers(sorted(equation.params["axes"]))
    return walk.emit(NAMES[equation.primitive.name], [value, axes], output.shape, output.dtype, keepdims=0)


def _logical(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    """Reduces booleans as numbers, by minimum or maximum, because few runtimes reduce booleans."""
    value, output = walk.whole(inputs[0]), equation.outvars[0].aval
    axes = walk.integers(sorted(equation.params["axes"]))
    number = walk.emit("Cast", [value], value.shape, np.float32, to=np.float32)
    op = LOGICAL[equation.primitive.name]
    reduced = walk.emit(op, [number, axes], output.shape, np.float32, keepdims=0)
    return walk.emit("Cast", [reduced], output.shape, np.bool_, to=np.bool_)


HANDLERS: Mapping[str, Handler] = {**dict.fromkeys(NAMES, _reduce), **dict.fromkeys(LOGICAL, _logical)}
