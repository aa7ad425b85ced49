"""The encoder of traces against PyTorch layers, and its cost against a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


def reference(params, stats, traces):
    x = torch.tensor(traces).permute(0, 2, 1)
    for layer in range(len(params["layers"])):
        part, moved = params["layers"][layer], stats["layers"][layer]["norm"]
        x = F.conv1d(x, torch.tensor(np.array(part["conv"]["kernel"])).permute(2, 1, 0), stride=2, padding=3)
        values = [moved["mean"], moved["var"], part["norm"]["scale"], part["norm"]["bias"]]
        x = F.relu(F.batch_norm(x, *(torch.tensor(np.array(value)) for value in values)))
    return x.mean(2).numpy()


def test_agrees_with_pytorch():
    network = functional(NetworkSpec("conv1d", {"shape": [45, 3], "width": 4, "depth": 5}, {"expression": 2}))
    random = np.random.default_rng(0)
    params, stats = jax.tree.map(
        lambda leaf: (random.uniform(0.5, 1.5, leaf.shape) - (leaf.ndim > 1)).astype(np.float32), network.abstract
    )
    traces = random.normal(size=(3, 45, 3)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, traces)
    assert signals.features.shape == (3, network.module.backbone.feature_size) == (3, 32)
    assert signals.logits.shape == (3, 2)
    expected = reference(params["backbone"], stats["backbone"], traces)
    np.testing.assert_allclose(signals.features, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_cost_by_hand():
    network = functional(NetworkSpec("conv1d", {"shape": (1024, 3)}))
    channels = [3, 32, 64, 128, 256, 256]
    pairs = list(zip(channels[:-1], channels[1:], strict=True))
    assert count_parameters(network.abstract[0]) == sum(7 * i * o + 2 * o for i, o in pairs)
    traces = jax.ShapeDtypeStruct((2, 1024, 3), jnp.float32)
    macs = count_macs(lambda p, s, x: network(p, s, x)[0], *network.abstract, traces)
    assert macs == 2 * sum(1024 // 2 ** (layer + 1) * 7 * i * o for layer, (i, o) in enumerate(pairs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [10]}, r"not \[10\]"),
        ({"shape": [10, 0]}, r"not \[10, 0\]"),
        ({"shape": [10, 1], "width": 0}, "not width 0"),
        ({"shape": [10, 1], "depth": 0}, "depth 0"),
        ({}, "shape"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        functional(NetworkSpec("conv1d", options))
