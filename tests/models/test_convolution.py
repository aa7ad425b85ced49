"""The CPU's forms of convolution against `lax.conv_general_dilated`: values and gradients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec, use_abstract_mesh

from emokd.models.convolution import convolution, plain_convolutions, target_platform

NUMBERS = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def torch_padding(size):
    return [((k - 1) // 2, (k - 1) // 2) for k in size]


def primitives(function, *args):
    return str(jax.make_jaxpr(lambda *a: function(*a))(*args))


def pair(strides, padding, groups):
    """Ours and lax's convolution as functions of inputs and kernel."""
    options = dict(dimension_numbers=NUMBERS, feature_group_count=groups)
    return (
        lambda x, k: convolution(x, k, strides, padding, **options),
        lambda x, k: lax.conv_general_dilated(x, k, strides, padding, **options),
    )


def arrays(inputs, kernel, dtype=np.float64):
    rng = np.random.default_rng(sum(inputs) + sum(kernel))
    return jnp.asarray(rng.normal(size=inputs), dtype), jnp.asarray(rng.normal(size=kernel), dtype)


def compare(inputs, kernel, strides, padding, groups):
    """Asserts that ours has no convolution left, and equal values and gradients."""
    with jax.enable_x64(True):
        x, k = arrays(inputs, kernel)
        ours, plain = pair(strides, padding, groups)
        assert "conv_general_dilated" not in primitives(ours, x, k)
        shape = jax.eval_shape(plain, x, k).shape
        cotangent = jnp.asarray(np.random.default_rng(0).normal(size=shape))

        @jax.jit
        def evaluate(x, k):
            results = [jax.vjp(function, x, k) for function in (ours, plain)]
            return [(value, *pull(cotangent)) for value, pull in results]

        for found, expected in zip(*evaluate(x, k), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)


UNEVEN = ((2, 0), (1, 3))


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "padding"),
    [
        (3, 1, (9, 7), "SAME"),
        (3, 1, (8, 8), "torch"),
        (3, 1, (6, 5), UNEVEN),
        (3, 2, (8, 8), "SAME"),
        (3, 2, (9, 7), "SAME"),
        (3, 2, (8, 8), "torch"),
        (3, 2, (9, 8), "torch"),
        (3, 2, (8, 7), "VALID"),
        (3, 2, (7, 8), UNEVEN),
        (5, 1, (8, 6), "torch"),
        (5, 2, (7, 10), "SAME"),
        (5, 2, (10, 7), "torch"),
        (7, 1, (8, 9), "SAME"),
        (7, 2, (9, 8), "torch"),
        (3, 3, (12, 5), "SAME"),
    ],
)
def test_depthwise(kernel, stride, size, padding):
    padding = torch_padding((kernel, kernel)) if padding == "torch" else padding
    compare((2, *size, 3), (kernel, kernel, 1, 3), (stride, stride), padding, 3)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_depthwise_unequal_sides(padding):
    compare((2, 9, 8, 4), (3, 5, 1, 4), (2, 1), padding, 4)


def test_depthwise_stride_beyond_kernel():
    """Inputs that no window meets have gradient zero."""
    compare((1, 11, 10, 2), (2, 2, 1, 2), (3, 4), "VALID", 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_pointwise(stride, size):
    compare((2, *size, 5), (1, 1, 5, 4), (stride, stride), "SAME", 1)


@pytest.mark.parametrize(
    ("kernel", "padding", "channels"), [(3, "SAME", 3), (3, "torch", 3), (3, "VALID", 1), (7, "torch", 3)]
)
def test_stem(kernel, padding, channels):
    padding = torch_padding((kernel, kernel)) if padding == "torch" else padding
    compare((2, 11, 10, channels), (kernel, kernel, channels, 6), (2, 2), padding, 1)


@pytest.mark.parametrize(
    ("inputs", "kernel", "groups", "dilation"),
    [
        ((1, 9, 9, 6), (3, 3, 6, 4), 1, 1),
        ((1, 9, 9, 6), (3, 3, 3, 4), 2, 1),
        ((1, 9, 9, 6), (3, 3, 1, 12), 6, 1),
        ((1, 9, 9, 6), (3, 3, 1, 6), 6, 2),
        ((1, 9, 9, 6), (1, 1, 3, 4), 2, 1),
    ],
    ids=["dense", "grouped", "two outputs a channel", "dilated depthwise", "grouped pointwise"],
)
def test_other_convolutions_are_left_alone(inputs, kernel, groups, dilation):
    x, k = arrays(inputs, kernel, np.float32)
    options = dict(dimension_numbers=NUMBERS, feature_group_count=groups, rhs_dilation=(dilation, dilation))
    expected = lax.conv_general_dilated(x, k, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(convolution(x, k, (1, 1), "SAME", **options), expected)


@pytest.mark.parametrize(("kernel", "groups"), [((3, 3, 1, 6), 6), ((1, 1, 6, 4), 1)], ids=["depthwise", "pointwise"])
def test_other_targets_and_exports_keep_the_convolution(kernel, groups):
    x, k = arrays((1, 6, 6, 6), kernel, np.float32)
    ours, _ = pair((1, 1), "SAME", groups)
    assert "conv_general_dilated" not in primitives(ours, x, k)
    with plain_convolutions():
        assert "conv_general_dilated" in primitives(ours, x, k)
    assert "conv_general_dilated" not in primitives(ours, x, k)
    for platform, kept in (("tpu", True), ("cpu", False)):
        device = AbstractDevice(device_kind="any", num_cores=1, platform=platform)
        with use_abstract_mesh(AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)):
            assert target_platform() == platform
            assert ("conv_general_dilated" in primitives(ours, x, k)) == kept
    assert target_platform() == "cpu"


def test_half_precision_sums_in_float32():
    """One rounding of the exact sum, not forty-nine."""
    x, k = arrays((2, 9, 9, 4), (7, 7, 1, 4), np.float32)
    x, k = x.astype(jnp.bfloat16), k.astype(jnp.bfloat16)
    ours, _ = pair((1, 1), "SAME", 4)
    _, plain = pair((1, 1), "SAME", 4)
    value, pull = jax.vjp(ours, x, k)
    exact, pull_exact = jax.vjp(plain, x.astype(jnp.float32), k.astype(jnp.float32))
    assert value.dtype == jnp.bfloat16
    cotangent = jnp.ones_like(value)
    gradients, wanted = pull(cotangent), pull_exact(cotangent.astype(jnp.float32))
    assert all(g.dtype == jnp.bfloat16 for g in gradients)
    for found, expected in zip((value, *gradients), (exact, *wanted), strict=True):
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "groups"), [((3, 3, 1, 3), 3), ((1, 1, 3, 4), 1), ((3, 3, 3, 4), 1)], ids=["depthwise", "point", "stem"]
)
def test_sharded_batch(kernel, groups):
    """Value and gradients on eight devices equal those on one, and the kernel's gradient is replicated."""
    x, k = arrays((16, 7, 6, 3), kernel, np.float32)
    ours, _ = pair((2, 2), "SAME", groups)
    step = jax.jit(lambda x, k: jax.value_and_grad(lambda x, k: (ours(x, k) ** 2).sum(), argnums=(0, 1))(x, k))
    value, expected = step(x, k)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    k = jax.device_put(k, NamedSharding(mesh, PartitionSpec()))
    compiled = step.lower(x, k).compile()
    sharded, gradients = compiled(x, k)
    np.testing.assert_allclose(sharded, value, rtol=1e-5)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-3)
    assert not gradients[0].sharding.is_fully_replicated
    assert "all-gather" not in compiled.as_text()


def test_vmap_over_kernels():
    x, k = arrays((2, 6, 6, 3), (3, 3, 1, 3), np.float32)
    kernels = jnp.stack([k, 2 * k])
    ours, plain = pair((1, 1), "SAME", 3)
    found = jax.vmap(jax.grad(lambda k: (ours(x, k) ** 2).sum()))(kernels)
    expected = [jax.grad(lambda k: (plain(x, k) ** 2).sum())(each) for each in kernels]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-4)
