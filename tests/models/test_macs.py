"""Multiply-accumulates against counts made by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from emokd.models.convolution import convolution, plain_convolutions
from emokd.models.layers import Conv
from emokd.models.macs import count_macs, count_macs_by_part
from emokd.parts import part

IMAGES = jax.ShapeDtypeStruct((2, 9, 8, 6), jnp.float32)


@pytest.mark.parametrize(
    ("outputs", "kernel", "stride", "groups", "expected"),
    [
        (6, 3, 1, 6, 2 * 9 * 8 * 6 * 9),
        (6, 5, 2, 6, 2 * 5 * 4 * 6 * 25),
        (4, 1, 1, 1, 2 * 9 * 8 * 4 * 6),
        (4, 1, 2, 1, 2 * 5 * 4 * 4 * 6),
        (4, 3, 2, 1, 2 * 5 * 4 * 4 * 6 * 9),
        (4, 3, 1, 2, 2 * 9 * 8 * 4 * 3 * 9),
    ],
    ids=["depthwise", "depthwise, stride 2", "pointwise", "pointwise, stride 2", "dense", "grouped"],
)
def test_layer_in_either_form(outputs, kernel, stride, groups, expected):
    layer = Conv(6, outputs, kernel, stride, groups=groups, rngs=nnx.Rngs(0))
    assert count_macs(layer, IMAGES) == expected
    assert count_macs(jax.jit(lambda x: layer(x)), IMAGES) == expected
    with plain_convolutions():
        assert count_macs(lambda x: layer(x), IMAGES) == expected


def test_stem():
    layer = Conv(3, 8, 3, 2, padding="SAME", rngs=nnx.Rngs(0))
    assert count_macs(layer, jax.ShapeDtypeStruct((1, 11, 10, 3), jnp.float32)) == 6 * 5 * 8 * 27


def test_a_backward_pass_costs_twice_the_forward_pass():
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 6}
    kernel = jax.ShapeDtypeStruct((3, 3, 1, 6), jnp.float32)

    def forward(x, k):
        return convolution(x, k, (2, 2), "SAME", **options)

    gradients = jax.grad(lambda x, k: forward(x, k).sum(), argnums=(0, 1))
    assert count_macs(gradients, IMAGES, kernel) == 3 * count_macs(forward, IMAGES, kernel)


def test_products_loops_and_branches():
    x, w = jnp.ones((4, 5)), jnp.ones((5, 5))
    assert count_macs(jnp.dot, x, w) == 100
    assert count_macs(lambda q, k: jnp.einsum("bqd,bkd->bqk", q, k), jnp.ones((2, 3, 4)), jnp.ones((2, 5, 4))) == 120
    assert count_macs(lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, length=7)[0], x, w) == 700
    assert count_macs(lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x @ w @ w), x, w) == 200
    assert count_macs(jax.checkpoint(jnp.dot), x, w) == 100
    assert count_macs(lambda x: jnp.tanh(x) * 2, x) == 0


def test_parts_are_told_apart_inside_loops_and_branches_and_backward():
    x, w = jnp.ones((4, 5)), jnp.ones((5, 5))  # a product has 100

    def step(x, w):
        with part("teacher"):
            x = jax.lax.scan(lambda c, _: (c @ w, None), x, length=7)[0]
        with part("student"):
            with part("teacher"):  # the outermost counts
                x = jax.jit(jnp.dot)(x, w)
            x = jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x @ w @ w)
        return (x @ w).sum()

    assert count_macs_by_part(jax.make_jaxpr(step)(x, w).jaxpr) == {"teacher": 700, "student": 300, "": 100}
    gradient = count_macs_by_part(jax.make_jaxpr(jax.grad(lambda w: step(x, w)))(w).jaxpr)
    assert gradient["teacher"] > 1400 and gradient[""] == 300
