"""MobileNetV2 against transformers' MobileNetV2, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.convolution import plain_convolutions
from emokd.models.cost import describe
from emokd.models.macs import count_macs
from emokd.models.mobilenet_v2 import InvertedResidual
from emokd.models.network import NetworkSpec, count_parameters, functional
from emokd.models.preprocessing import Preprocessing
from emokd.models.registry import create_backbone
from emokd.weights.mapping import convert

torch = Lazily("torch")
transformers = Lazily("transformers")


def randomise(model, seed=0):
    """Random parameters and running statistics under which activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or (name.endswith("weight") and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def transformers_name(path):
    """Our module's name in transformers, which counts the first block to the stem."""
    match path.split("/"):
        case ["heads", _]:
            return "classifier"
        case ["backbone", "stem", unit]:
            return f"mobilenet_v2.conv_stem.first_conv.{UNITS[unit]}"
        case ["backbone", "last", unit]:
            return f"mobilenet_v2.conv_1x1.{UNITS[unit]}"
        case ["backbone", "blocks", "0", part, unit]:
            return f"mobilenet_v2.conv_stem.{PARTS[part]}.{UNITS[unit]}"
        case ["backbone", "blocks", block, part, unit]:
            return f"mobilenet_v2.layer.{int(block) - 1}.{PARTS[part]}.{UNITS[unit]}"
    raise KeyError(path)


UNITS = {"conv": "convolution", "norm": "normalization"}
PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}


@pytest.mark.parametrize(("width", "size"), [(1.0, 64), (0.35, 75)])
def test_parity_with_transformers(width, size):
    config = transformers.MobileNetV2Config(
        depth_multiplier=width, tf_padding=False, layer_norm_eps=1e-5, num_labels=7, image_size=size
    )
    theirs = randomise(transformers.MobileNetV2ForImageClassification(config))
    network = functional(NetworkSpec("mobilenet_v2", {"width": width}, {"objects": 7}))
    foreign = {name: value.numpy() for name, value in theirs.state_dict().items()}
    params, stats = convert(foreign, network.abstract, transformers_name)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, images)
    with torch.no_grad():
        out = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), output_hidden_states=True)
    expected = out.logits.numpy()
    np.testing.assert_allclose(
        signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    assert np.ptp(expected) > 0.1
    assert signals.features.shape == (2, 1280)
    side = -(-size // 32)
    assert signals.intermediates["map"].shape == (2, side, side, 1280)


def test_published_sizes():
    """3.50 M parameters and 300.8 M multiply-accumulates at 224 (torchvision's documentation: 3,504,872; 0.30)."""
    network = functional(NetworkSpec("mobilenet_v2", heads={"objects": 1000}))
    assert count_parameters(network.abstract[0]) == 3_504_872
    macs = count_macs(network, *network.abstract, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert macs == pytest.approx(300.8e6, rel=1e-3)


def count_by_hand(size):
    """Without a head, from the rows (expansion, channels, repeats, stride) of the paper's Table 2."""
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    side, channels = size // 2, 32
    macs = side**2 * 9 * 3 * channels
    for expansion, outputs, repeats, stride in rows:
        for step in (stride, *[1] * (repeats - 1)):
            hidden = expansion * channels
            macs += side**2 * channels * hidden if expansion > 1 else 0
            side //= step
            macs += side**2 * (9 * hidden + hidden * outputs)
            channels = outputs
    return macs + side**2 * channels * 1280


@pytest.mark.parametrize(("size", "giga"), [(224, 0.2995), (256, 0.391)])
def test_cost_without_a_head(size, giga):
    cost = describe(NetworkSpec("mobilenet_v2", preprocessing=Preprocessing(size)))
    assert cost["macs"] == count_by_hand(size)
    assert cost["macs"] / 1e9 == pytest.approx(giga, rel=1e-3)


@pytest.mark.parametrize(("width", "features", "parameters"), [(1.4, 1792, 6_108_776), (0.5, 1280, 1_968_680)])
def test_width(width, features, parameters):
    """Parameter counts as timm states them for mobilenetv2_140 and mobilenetv2_050: 6.11 M and 1.97 M."""
    network = functional(NetworkSpec("mobilenet_v2", {"width": width}, {"objects": 1000}))
    assert network.module.backbone.feature_size == features
    assert count_parameters(network.abstract[0]) == parameters


def test_training_has_the_same_gradients_in_both_forms_of_convolution():
    """In float64 (which flax's statistics promote to themselves), of a block with its normalisation in training."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        block = InvertedResidual(4, 4, expansion=6, strides=1, rngs=nnx.Rngs(0))
        graph, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)
        params, stats = (
            jax.tree.map(lambda leaf: leaf.astype(jnp.float64), nnx.to_pure_dict(t)) for t in (params, stats)
        )
        images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 5, 4)))

        def loss(params, images):
            outputs = nnx.merge(graph, params, stats)(images)
            return (outputs * jnp.sin(jnp.arange(outputs.size).reshape(outputs.shape))).sum()

        found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, images)
        with plain_convolutions():
            plain = jax.jit(jax.value_and_grad(lambda *args: loss(*args), argnums=(0, 1))).lower(params, images)
        assert "stablehlo.convolution" in plain.as_text()
        expected = plain.compile()(params, images)
        found, expected = jax.tree.map(np.asarray, (found, expected))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), found, expected)


def test_a_width_of_zero_is_refused():
    with pytest.raises(InputError, match="width"):
        create_backbone("mobilenet_v2", rngs=nnx.Rngs(0), width=0.0)
