"""Simulated integers: known answers, gradients, and that nothing of them is there where a network does not ask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emokd.errors import InputError
from emokd.models import rounding
from emokd.models.convolution import plain_convolutions
from emokd.models.layers import BatchNorm, Conv, conv_norm
from emokd.models.network import NetworkSpec, TrainedModel, functional, in_floating_point
from emokd.models.preprocessing import Preprocessing


def spec(quantized, backbone="basic_cnn"):
    options = {"width": 2, "size": 16} if backbone == "basic_cnn" else {}
    return NetworkSpec(backbone, options, {"expression": 5}, preprocessing=Preprocessing(16), quantized=quantized)


def random_like(tree, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.uniform(0.3, 1.2, leaf.shape), jnp.float32), tree)


def test_activations_go_to_the_nearest_of_256_levels_and_the_gradient_stops_outside():
    scale, zero = rounding.step(jnp.asarray([-1.0, 3.0]))
    assert float(scale) == pytest.approx(4 / 255)
    assert float(zero) == 64
    values = np.random.default_rng(0).uniform(-2, 4, 1000).astype(np.float32)
    levels = (np.arange(256) - 64) * np.float32(4 / 255)
    nearest = levels[np.abs(values[:, None] - levels[None]).argmin(1)]
    found, backward = jax.vjp(lambda x: rounding.through_uint8(x, scale, zero), jnp.asarray(values))
    np.testing.assert_allclose(found, nearest, atol=1e-6)
    (gradient,) = backward(jnp.full(values.shape, 2.0))
    np.testing.assert_array_equal(gradient, np.where((values >= levels[0]) & (values <= levels[-1]), 2.0, 0.0))


def test_a_range_without_0_is_widened_so_that_0_stays_0():
    for low, high in ((0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        scale, zero = rounding.step(jnp.asarray([low, high]))
        assert float(rounding.through_uint8(jnp.zeros(()), scale, zero)) == 0


def products(kernel, bias, values=((1.0,), (0.0,))):
    """values @ kernel + bias with values of 0 to 2.55 in steps of .01, and the same as an export is traced."""
    values = jnp.asarray(values)

    def found():
        with rounding.rounding(jnp.asarray([[0.0, 2.55]])):
            return rounding.product(jnp.dot, values, jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))

    with plain_convolutions():
        exported = found()
    np.testing.assert_allclose(found(), exported, rtol=1e-5, atol=1e-6)
    return np.asarray(exported, np.float64)


def test_weights_go_to_int8_by_output_channel_and_the_bias_to_products_of_scales():
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(6, 4)) * np.asarray([1, 10, 0.1, 0])
    bias, values = generator.normal(size=4), generator.integers(0, 256, (5, 6)) / 100
    units = np.abs(kernel).max(0) / 127
    units[3] = abs(bias[3]) / (0.01 * 2**30)  # of weights that are all 0 the bias decides
    wanted = values @ (np.round(kernel / units) * units) + np.round(bias / (units * 0.01)) * units * 0.01
    np.testing.assert_allclose(products(kernel, bias, values), wanted, rtol=1e-4, atol=1e-5)


def test_a_bias_too_large_for_its_integers_widens_the_scale_of_its_weights():
    unit = 100 / (0.01 * 2**30)  # 9.3e-6
    large = products([[3.2 * unit]], [100.0], [[1.0], [0.0]])
    np.testing.assert_allclose(large[1], 100, rtol=1e-6)
    small = products([[3.2 * unit]], [0.0], [[1.0], [0.0]])
    assert small[0, 0] == pytest.approx(3.2 * unit, rel=1e-5)
    with rounding.rounding(jnp.asarray([[0.0, 2.55]])):
        shown = []
        rounding.product(
            lambda x, w: shown.append(w) or x @ w, jnp.ones((1, 1)), jnp.full((1, 1), 3.2 * unit), jnp.asarray([100.0])
        )
    assert float(shown[0][0, 0]) == 3


def test_the_gradients_are_those_of_the_product_without_rounding():
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.uniform(0.1, 2.5, shape), jnp.float32) for shape in ((5, 6), (6, 4), (4,))]
    cotangent = jnp.asarray(generator.normal(size=(5, 4)), jnp.float32)

    def rounded(values, kernel, bias):
        with rounding.rounding(jnp.asarray([[0.0, 2.55]])):
            return rounding.product(jnp.dot, values, kernel, bias)

    outputs, backward = jax.vjp(rounded, *arrays)
    _, wanted = jax.vjp(lambda x, w, b: x @ w + b[None], *arrays)
    for ours, theirs in zip(backward(cotangent), wanted(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)  # by rounded values and weights
    assert np.abs(outputs - (arrays[0] @ arrays[1] + arrays[2][None])).max() > 1e-4


def test_folding_alone_changes_nothing(monkeypatch):
    monkeypatch.setattr(rounding, "through_uint8", lambda values, scale, zero: values)
    monkeypatch.setattr(rounding, "nearest", lambda numbers: numbers)
    conv, norm = Conv(3, 4, 3, 2, use_bias=True, rngs=nnx.Rngs(0)), BatchNorm(4, rngs=nnx.Rngs(0))
    norm.eval()
    for variable, seed in zip((conv.bias, norm.scale, norm.bias, norm.mean, norm.var), range(5), strict=True):
        variable[...] = random_like(variable[...], seed)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
    wanted = conv_norm(conv, norm, x)
    with rounding.rounding(jnp.asarray([[0.0, 1.0]])):
        found = conv_norm(conv, norm, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer_padding", [1, "SAME", [(0, 1), (2, 0)]])
def test_a_convolution_with_another_kernel_is_placed_as_with_its_own(layer_padding):
    conv = Conv(3, 6, 3, 2, padding=layer_padding, groups=3, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
    np.testing.assert_allclose(conv.with_kernel(x, conv.kernel[...]), conv(x), rtol=1e-5, atol=1e-6)


def test_a_network_in_floating_point_is_traced_without_any_rounding():
    picture = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    plain, quantized = functional(spec(False)), functional(spec(True))
    assert "ranges" not in plain.abstract[1]
    assert quantized.abstract[1]["ranges"].shape == (5 + 4 + 1 + 1, 2)  # convolutions, pools, the mean, the head

    def text(network, **options):
        params, stats = network.abstract
        return str(jax.make_jaxpr(lambda p, s, x: network(p, s, x, **options)[0].logits)(params, stats, picture))

    assert "round" not in text(plain)
    assert "round" not in text(quantized, integers=False)
    assert text(quantized).count("name=uint8_and_back") == 11


def test_a_model_in_floating_point_has_no_ranges():
    network = functional(spec(True))
    params, stats = map(random_like, network.abstract)
    floating = in_floating_point(TrainedModel(spec(True), params, stats, "here"))
    assert floating.spec == spec(False)
    x = jnp.ones((1, 16, 16, 3))
    np.testing.assert_array_equal(
        functional(floating.spec)(params, floating.stats, x)[0].logits,
        network(params, stats, x, integers=False)[0].logits,
    )
    assert in_floating_point(floating) is floating


def test_other_backbones_are_refused():
    with pytest.raises(InputError, match=r"efficientnet_b0 cannot learn to compute in integers: only basic_cnn"):
        functional(spec(True, "efficientnet_b0"))
