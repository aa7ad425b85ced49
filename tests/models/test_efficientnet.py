"""EfficientNet against transformers' EfficientNet, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional
from emokd.weights.mapping import convert

torch = Lazily("torch")
transformers = Lazily("transformers")

PARTS = {
    "expand/conv": "expansion.expand_conv",
    "expand/norm": "expansion.expand_bn",
    "depthwise/conv": "depthwise_conv.depthwise_conv",
    "depthwise/norm": "depthwise_conv.depthwise_norm",
    "squeeze_excite/reduce": "squeeze_excite.reduce",
    "squeeze_excite/expand": "squeeze_excite.expand",
    "project/conv": "projection.project_conv",
    "project/norm": "projection.project_bn",
}
OUTER = {
    "stem/conv": "embeddings.convolution",
    "stem/norm": "embeddings.batchnorm",
    "last/conv": "encoder.top_conv",
    "last/norm": "encoder.top_bn",
}
STARTS = (0, 1, 3, 5, 8, 11, 15)  # transformers numbers blocks in one row


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
    match path.split("/"):
        case ["heads", _]:
            return "classifier"
        case ["backbone", "stages", stage, block, *rest]:
            return f"efficientnet.encoder.blocks.{STARTS[int(stage)] + int(block)}.{PARTS['/'.join(rest)]}"
        case ["backbone", *rest]:
            return f"efficientnet.{OUTER['/'.join(rest)]}"
    raise KeyError(path)


def test_b0_against_transformers():
    """At an input where every map is even: elsewhere transformers does not pad as TensorFlow does."""
    config = transformers.EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, num_labels=7, image_size=64
    )
    theirs = randomise(transformers.EfficientNetForImageClassification(config))
    network = functional(NetworkSpec("efficientnet_b0", heads={"objects": 7}))
    foreign = {name: value.numpy() for name, value in theirs.state_dict().items()}
    params, stats = convert(foreign, network.abstract, transformers_name)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, images)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(
        signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    assert np.ptp(expected) > 0.1
    assert signals.features.shape == (2, 1280)
    assert signals.intermediates["map"].shape == (2, 2, 2, 1280)


@pytest.mark.parametrize(
    ("backbone", "size", "features", "parameters", "macs"),
    [
        ("efficientnet_b0", 224, 1280, 5_288_548, 0.39e9),
        ("efficientnet_b2", 260, 1408, 9_109_994, 1.0e9),
        ("efficientnet_lite0", 224, 1280, 4_652_008, 0.39e9),
    ],
)
def test_published_sizes(backbone, size, features, parameters, macs):
    """Tan and Le 2019, Table 2 (5.3 M, 0.39 G; 9.2 M, 1.0 G), and exact counts as timm states them.

    Google's table gives Lite0 407 M, which counts normalisation as well; without it it is B0 without its gates.
    """
    network = functional(NetworkSpec(backbone, heads={"objects": 1000}))
    assert network.module.backbone.feature_size == features
    assert network.module.backbone.preprocessing.size == size
    assert count_parameters(network.abstract[0]) == parameters
    found = count_macs(network, *network.abstract, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    assert found == pytest.approx(macs, rel=0.015)
