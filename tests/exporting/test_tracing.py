"""The walk, the folding of constants and the rewrites, on functions of a few operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting_setup import export_and_run, operators, run
from flax import nnx
from jax import lax

from emokd.errors import InputError
from emokd.exporting.primitives import HANDLERS
from emokd.exporting.tracing import to_graph
from emokd.models.layers import SqueezeExcite

VALUES = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
MAPS = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 5)).astype(np.float32)
SCALE = np.linspace(0.5, 2, 5, dtype=np.float32)[None, None, None]


def convolve(x, padding="SAME", kernel=KERNEL, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


# Each function of x, and what must be in its graph, where that is the point.
FUNCTIONS = {
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), {"Gelu": 1}),
    "softmax": (lambda x: jax.nn.softmax(x), {"Softmax": 1}),
    "relu6": (lambda x: jax.nn.relu6(x), {"Clip": 1}),
    "clip": (lambda x: jnp.clip(x, -0.5, 0.5), {"Clip": 1}),
    "mean": (lambda x: x.mean(-1), {"ReduceMean": 1}),
    "chain": (lambda x: (x * 2.0 + 1.0) / 4.0 - 3.0, {"Mul": 1, "Add": 1}),
    "linear": (lambda x: jnp.dot(x * 2.0 - 1.0, VALUES[0].T) * 3.0 + 1.0, {"MatMul": 1, "Add": 1}),
    "slices": (lambda x: jnp.concatenate([x[:, 1:3, ::2], x[:, :2, jnp.array([5, 0, 2])]], -1), None),
    "flip": (lambda x: jnp.flip(x, 1), {"Slice": 1}),
    "row": (lambda x: x[:, 2] - x[:, :, 1].sum(1, keepdims=True), None),
    "where": (lambda x: jnp.where(x > 0, jnp.zeros_like(x), x**3), None),
    "nan": (lambda x: jnp.isnan(jnp.sqrt(x)).any(1).astype(jnp.float32), None),
    "broadcast": (lambda x: jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1), None),
    "attention": (lambda x: jnp.einsum("bqc,bkc->bqk", x, x), {"Transpose": 1, "MatMul": 1}),
    "outer": (lambda x: jnp.einsum("bqc,bkd->bqckd", x, x), None),
    "fft": (lambda x: jnp.abs(jnp.fft.rfft(x, 8).real), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_gives_what_jax_gives(name):
    function, wanted = FUNCTIONS[name]
    graph, found = export_and_run(lambda arrays: {"y": function(arrays["x"])}, {"x": VALUES})
    np.testing.assert_allclose(found["y"], function(VALUES), rtol=1e-5, atol=1e-5)
    if wanted is not None:
        assert operators(graph) == wanted


MAP_FUNCTIONS = {
    "norm_after": (lambda x: convolve(x) * SCALE + 1.0, {"Conv": 1}),
    "norm_before_without_padding": (lambda x: convolve(x * 2.0 - 1.0, "VALID"), {"Conv": 1}),
    "shift_before_padding": (lambda x: convolve(x + 1.0), {"Add": 1, "Conv": 1}),
    "scale_before_padding": (lambda x: convolve(-x / 3.0), {"Conv": 1}),
    "norm_before_groups": (lambda x: convolve(x * SCALE[..., :3] + 2.0, "VALID", KERNEL[:, :, :1, :3], 3), {"Conv": 1}),
    "read_twice": (lambda x: convolve(x) + 0.0 * jax.nn.relu(convolve(x) * SCALE), None),
    "residual": (lambda x: x + 0.25 * (jax.nn.relu(x) - x), None),
    "uneven_stride": (
        lambda x: lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        {"Conv": 1},
    ),
}


@pytest.mark.parametrize("name", MAP_FUNCTIONS)
def test_scales_and_shifts_around_convolutions_are_folded_only_where_that_is_exact(name):
    function, wanted = MAP_FUNCTIONS[name]
    graph, found = export_and_run(lambda arrays: {"y": function(arrays["x"])}, {"x": MAPS})
    np.testing.assert_allclose(found["y"], function(MAPS), rtol=1e-5, atol=1e-5)
    if wanted is not None:
        assert {op: n for op, n in operators(graph).items() if op != "Transpose"} == wanted


def test_what_is_unknown_is_named_with_its_place():
    def function(arrays):
        return {"y": jnp.sort(arrays["x"])}

    with pytest.raises(InputError, match=r"'sort' on .*4, 6.*cannot be exported"):
        to_graph(function, {"x": (4, 6)})


def test_one_graph_serves_batches_of_any_size():
    graph = to_graph(lambda arrays: {"y": jnp.concatenate([arrays["x"], jnp.ones_like(arrays["x"])], 1)}, {"x": (2, 3)})
    for size in (1, 5):
        x = np.random.default_rng(size).normal(size=(size, 2, 3)).astype(np.float32)
        np.testing.assert_array_equal(run(graph, {"x": x})["y"], np.concatenate([x, np.ones_like(x)], 1))


def test_what_is_unknown_in_a_layer_is_named_with_it(monkeypatch):
    monkeypatch.delitem(HANDLERS, "logistic")
    layer = SqueezeExcite(4, 2, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"'logistic' .* SqueezeExcite.__call__ \(line \d+ of layers.py\)"):
        to_graph(lambda arrays: {"y": layer(arrays["x"])}, {"x": (2, 2, 4)})
