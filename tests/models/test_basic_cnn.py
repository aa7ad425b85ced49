"""The basic student against PyTorch layers, and its cost against a count by hand."""

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, count_parameters, functional

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


def reference(params, stats, images):
    x = torch.tensor(images).permute(0, 3, 1, 2)
    for layer in range(5):
        if layer:
            x = F.max_pool2d(x, 2)
        norm, moved = params["norms"][layer], stats["norms"][layer]
        x = F.conv2d(x, torch.tensor(np.array(params["convs"][layer]["kernel"])).permute(3, 2, 0, 1), padding=1)
        parts = [moved["mean"], moved["var"], norm["scale"], norm["bias"]]
        x = F.relu(F.batch_norm(x, *(torch.tensor(np.array(part)) for part in parts)))
    return x.mean((2, 3)).numpy()


@pytest.mark.parametrize(("width", "size"), [(4, 32), (8, 37)])
def test_agrees_with_pytorch(width, size):
    network = functional(NetworkSpec("basic_cnn", options={"width": width, "size": size}, heads={"expression": 3}))
    random = np.random.default_rng(0)
    params, stats = jax.tree.map(
        lambda leaf: (random.uniform(0.5, 1.5, leaf.shape) - (leaf.ndim > 1)).astype(np.float32), network.abstract
    )
    images = random.normal(size=(3, size, size, 3)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, images)
    assert signals.features.shape == (3, 8 * width)
    expected = reference(params["backbone"], stats["backbone"], images)
    np.testing.assert_allclose(signals.features, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_is_about_a_million_parameters():
    network = functional(NetworkSpec("basic_cnn"))
    kernels = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 256)
    assert count_parameters(network.abstract[0]) == kernels + 2 * (32 + 64 + 128 + 256 + 256) == 979_232
    assert network.module.backbone.preprocessing.size == 96


def test_impossible_options_are_refused():
    with pytest.raises(InputError, match="width 0"):
        functional(NetworkSpec("basic_cnn", options={"width": 0}))
    with pytest.raises(InputError, match="size 8"):
        functional(NetworkSpec("basic_cnn", options={"size": 8}))
