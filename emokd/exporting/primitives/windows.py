"""Pooling: reductions over windows of maps, channels last."""

from collections.abc import Mapping

from jax.extend import core

from emokd.exporting.walk import Handler, Value, Walk

NAMES = {"reduce_window_max": "MaxPool", "reduce_window_sum": "SumPool"}


def _pool(walk: Walk, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
    value, params, output = walk.whole(inputs[0]), equation.params, equation.outvars[0].aval
    window, strides, padding = (params[f"{name}"] for name in ("window_dimensions", "window_strides", "padding"))
    dilated = any(d != 1 for d in (*params["base_dilation"], *params["window_dilation"]))
    if dilated or len(window) < 3 or (window[0], window[-1]) != (1, 1):
        raise walk.unknown(equation, "is no pooling of maps with their channels last")
    return walk.emit(
        NAMES[equation.primitive.name],
        [value],
        output.shape,
        output.dtype,
        kernel_shape=list(window[1:-1]),
        strides=list(strides[1:-1]),
        pads=[low for low, _ in padding[1:-1]] + [high for _, high in padding[1:-1]],
    )


HANDLERS: Mapping[str, Handler] = dict.fromkeys(NAMES, _pool)
