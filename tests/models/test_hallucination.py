"""T-Net against NumPy, and its cost against a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emokd.errors import InputError
from emokd.models.hallucination import TNet
from emokd.models.macs import count_macs
from emokd.models.network import count_parameters


def test_agrees_with_numpy():
    network = TNet(5, 4, encoder=[7, 3], decoder=[6], rngs=nnx.Rngs(0))
    assert network.feature_size == 4
    features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    x = features
    layers = [*network.encoder, *network.decoder]
    for layer in layers:
        x = x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        x = x if layer is layers[-1] else np.maximum(x, 0)
    assert [layer.kernel[...].shape for layer in layers] == [(5, 7), (7, 3), (3, 6), (6, 4)]
    assert (x < 0).any()
    np.testing.assert_allclose(network(features), x, rtol=1e-5, atol=1e-6)


def test_cost_by_hand():
    graph, state = nnx.split(nnx.eval_shape(lambda: TNet(512, 300, rngs=nnx.Rngs(0))))
    sizes = [512, 2048, 1024, 512, 256, 512, 1024, 2048, 300]
    products = [i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
    assert count_parameters(nnx.to_pure_dict(state)) == sum(products) + sum(sizes[1:])
    features = jax.ShapeDtypeStruct((3, 512), jnp.float32)
    assert count_macs(lambda s, x: nnx.merge(graph, s)(x), state, features) == 3 * sum(products)


def test_sizes_below_one_are_refused():
    with pytest.raises(InputError, match="sizes >= 1"):
        TNet(5, 0, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="at least one encoder layer"):
        TNet(5, 4, encoder=(), rngs=nnx.Rngs(0))
