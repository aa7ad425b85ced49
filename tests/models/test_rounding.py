"""Simulated integers: known answers, gradients, and that nothing of them is there where a network does not ask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emokd.errors import InputError
from emokd.models import rounding
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


def test_weights_go_to_int8_by_output_channel_with_the_gradient_of_the_identity():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32) * np.asarray([1, 10, 0.1, 0])
    ranges = jnp.asarray([[0.0, 2.55]])

    def rounded(kernel):
        with rounding.rounding(ranges):
            return rounding.product(jnp.zeros((1, 2)), kernel, jnp.zeros(4))[1]

    found, backward = jax.vjp(rounded, jnp.asarray(kernel, jnp.float32))
    for channel in range(3):
        unit = np.abs(kernel[..., channel]).max() / 127
        integers = np.asarray(found[..., channel]) / unit
        np.testing.assert_allclose(integers, np.round(kernel[..., channel] / unit), atol=1e-3)
    assert not np.any(found[..., 3])
    np.testing.assert_array_equal(backward(found)[0], found)


def test_a_bias_too_large_for_its_integers_widens_the_scale_of_its_weights():
    with rounding.rounding(jnp.asarray([[0.0, 2.55]])):
        _, kernel, _ = rounding.product(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-9), jnp.asarray([100.0]))
    unit = 100 / (0.01 * 2**30)  # 9.3e-6, of which 1e-9 is nothing
    assert float(kernel[0, 0]) == 0
    with rounding.rounding(jnp.asarray([[0.0, 2.55]])):
        _, kernel, _ = rounding.product(jnp.zeros((1, 1)), jnp.full((1, 1), 3.2 * unit), jnp.asarray([100.0]))
    assert float(kernel[0, 0]) == pytest.approx(3 * unit, rel=1e-5)


def test_folding_alone_changes_nothing(monkeypatch):
    monkeypatch.setattr(rounding, "through_uint8", lambda values, scale, zero: values)
    monkeypatch.setattr(rounding, "through_integers", lambda numbers, scales: numbers)
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
def test_a_convolution_with_other_weights_is_placed_as_with_its_own(layer_padding):
    conv = Conv(3, 6, 3, 2, padding=layer_padding, groups=3, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
    np.testing.assert_allclose(conv.with_weights(x, conv.kernel[...], jnp.zeros(6)), conv(x), rtol=1e-5, atol=1e-6)


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
