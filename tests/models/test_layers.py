"""Shared layers against PyTorch and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lazily import Lazily

from emokd.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    SqueezeExcite,
    global_average_pool,
    round_channels,
    statistics_of,
)
from emokd.models.multimodal import Encoder, ModalitySpec

torch = Lazily("torch")


@pytest.fixture
def rngs():
    return nnx.Rngs(0)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(4, 9, 8, 6)).astype(np.float32)


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 2, 1), (3, 2, 6), (5, 1, 6), (3, 1, 2)])
def test_conv_pads_as_pytorch_by_default(kernel, stride, groups, images, rngs):
    layer = Conv(6, 6, kernel, stride, groups=groups, use_bias=True, rngs=rngs)
    layer.bias[...] = jnp.arange(6, dtype=jnp.float32)
    weight = torch.from_numpy(np.array(layer.kernel[...])).permute(3, 2, 0, 1)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(
        inputs, weight, torch.arange(6.0), stride=stride, padding=kernel // 2, groups=groups
    )
    np.testing.assert_allclose(layer(images), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_conv_in_three_dimensions(rngs):
    layer = Conv(2, 3, (3, 3, 3), rngs=rngs)
    assert layer(jnp.ones((1, 4, 5, 6, 2))).shape == (1, 4, 5, 6, 3)


@pytest.mark.parametrize("groups", [1, 96])
def test_fresh_kernels_have_the_variance_of_he(groups, rngs):
    kernel = Conv(96, 96, 3, groups=groups, rngs=rngs).kernel[...]
    np.testing.assert_allclose(kernel.var(), 2 / (9 * 96 / groups), rtol=0.2)


@pytest.mark.parametrize("entries", [1, 3], ids=["examples", "frames"])
@pytest.mark.parametrize("shape", [(), (7,)], ids=["tables", "traces"])
def test_batch_norm_takes_the_statistics_of_the_rows_that_count(rngs, shape, entries):
    layer, rows = BatchNorm(6, rngs=rngs), np.array([True, False, True, True])
    values = np.random.default_rng(1).normal(3, 2, size=(4, entries, *shape, 6))
    values[1] = 1e3
    inputs = values.reshape(4 * entries, *shape, 6).astype(np.float32)
    with statistics_of(jnp.asarray(rows)):
        outputs = layer(inputs)
    counted = values[rows].reshape(-1, 6)
    mean, var = counted.mean(0), counted.var(0)
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(var + 1e-5), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(layer.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    with statistics_of(jnp.zeros(4, bool)):
        assert np.isfinite(layer(inputs)).all()
    np.testing.assert_allclose(layer.mean[...], 0.1 * mean, rtol=1e-5)  # as it was
    layer.eval()
    alone = layer(inputs)
    with statistics_of(jnp.asarray(rows)):
        np.testing.assert_array_equal(layer(inputs), alone)


@pytest.mark.parametrize(("backbone", "options", "shape"), [("mlp", {"widths": (4,), "norm": "batch"}, (5,)),
                                                            ("conv1d", {"width": 2, "depth": 2}, (16, 3))])  # fmt: skip
def test_an_absent_modality_does_not_enter_its_encoders_statistics(backbone, options, shape):
    """Answers and statistics of the rows that have it are those of a batch of these rows alone."""
    spec, values = ModalitySpec("x", shape, backbone, options), np.random.default_rng(0).normal(size=(6, *shape))
    present = np.array([True, False, True, True, False, True])
    values = np.where(present.reshape(-1, *(1 for _ in shape)), values, np.nan).astype(np.float32)
    whole, alone = (Encoder(spec, 4, rngs=nnx.Rngs(0)) for _ in range(2))
    tokens, expected = whole(values), alone(values[present])
    np.testing.assert_allclose(tokens[present], expected, rtol=1e-4, atol=1e-5)
    found, wanted = (nnx.to_pure_dict(nnx.state(encoder, nnx.BatchStat)) for encoder in (whole, alone))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(wanted["backbone"]))


def test_batch_norm_is_pytorchs(images, rngs):
    """In training and in evaluation; flax keeps the biased variance where PyTorch keeps the unbiased."""
    ours = BatchNorm(6, epsilon=1e-3, rngs=rngs)
    theirs = torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.1)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.testing.assert_allclose(ours(images), theirs(inputs).detach().permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    n = images.size // 6
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose((ours.var[...] - 0.9) * n / (n - 1) + 0.9, theirs.running_var, rtol=1e-5)
    ours.eval()
    ours.var[...] = jnp.asarray(theirs.running_var.numpy())
    expected = theirs.eval()(inputs).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours(images), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_inputs_keep_their_dtype_and_parameters_theirs(images, rngs):
    layer = ConvNorm(6, 6, 3, groups=6, activation=jax.nn.relu6, rngs=rngs)
    squeeze = SqueezeExcite(6, 2, rngs=rngs)
    expected = np.array(squeeze(layer(images)))
    found = squeeze(layer(jnp.asarray(images, jnp.bfloat16)))
    assert found.dtype == jnp.bfloat16
    assert {layer.conv.kernel.dtype, layer.norm.mean.dtype, layer.norm.var.dtype} == {jnp.dtype("float32")}
    assert global_average_pool(found).dtype == jnp.float32
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.05)


def test_squeeze_excite(images, rngs):
    layer = SqueezeExcite(6, 2, rngs=rngs)
    first, second = (np.array(part.kernel[...])[0, 0] for part in (layer.reduce, layer.expand))
    hidden = images.mean((1, 2)) @ first
    gate = 1 / (1 + np.exp(-(hidden / (1 + np.exp(-hidden))) @ second))
    np.testing.assert_allclose(layer(images), images * gate[:, None, None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(32, 32), (11.2, 16), (8.4, 8), (3, 8), (26.4, 24), (123.2, 120), (1792.0, 1792), (17.6, 16), (18, 24)],
)
def test_round_channels(channels, expected):
    assert round_channels(channels) == expected


def test_global_average_pool_of_a_clip():
    clip = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(global_average_pool(clip), clip.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
