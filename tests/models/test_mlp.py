"""The perceptron on feature tables against PyTorch layers, and its cost against a count by hand."""

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


def tensor(value):
    return torch.tensor(np.array(value))


def reference(params, stats, table):
    x = torch.tensor(table)
    for layer in range(len(params["layers"])):
        part, norm = params["layers"][layer], params["norms"][layer]
        x = F.linear(x, tensor(part["kernel"]).T, tensor(part["bias"]))
        scale, bias = tensor(norm["scale"]), tensor(norm["bias"])
        if stats:
            moved = stats["norms"][layer]
            x = F.batch_norm(x, tensor(moved["mean"]), tensor(moved["var"]), scale, bias)
        else:
            x = F.layer_norm(x, scale.shape, scale, bias)
        x = F.relu(x)
    return x.numpy()


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_agrees_with_pytorch(norm):
    network = functional(NetworkSpec("mlp", {"shape": [7], "widths": [6, 5], "norm": norm}))
    random = np.random.default_rng(0)
    params, stats = jax.tree.map(
        lambda leaf: (random.uniform(0.5, 1.5, leaf.shape) - (leaf.ndim > 1)).astype(np.float32), network.abstract
    )
    table = random.normal(size=(4, 7)).astype(np.float32)
    signals, _ = jax.jit(network)(params, stats, table)
    assert signals.features.shape == (4, network.module.backbone.feature_size) == (4, 5)
    expected = reference(params["backbone"], stats.get("backbone"), table)
    np.testing.assert_allclose(signals.features, expected, rtol=1e-4, atol=1e-5)


def test_cost_by_hand():
    network = functional(NetworkSpec("mlp", {"shape": (512,)}))
    assert count_parameters(network.abstract[0]) == 513 * 256 + 2 * 256 + 257 * 128 + 2 * 128
    table = jax.ShapeDtypeStruct((3, 512), jnp.float32)
    macs = count_macs(lambda p, s, x: network(p, s, x)[0], *network.abstract, table)
    assert macs == 3 * (512 * 256 + 256 * 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [10, 3]}, r"not \[10, 3\]"),
        ({"shape": [10], "widths": []}, r"not \[\]"),
        ({"shape": [10], "widths": [4, 0]}, r"not \[4, 0\]"),
        ({"shape": [10], "norm": "bath"}, "Did you mean 'batch'"),
        ({}, "shape"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        functional(NetworkSpec("mlp", options))
