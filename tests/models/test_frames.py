"""A picture network on each frame of a video."""

import jax
import numpy as np
import pytest

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional

INNER = {"width": 4, "size": 32}


def make(pooling):
    network = functional(NetworkSpec("frames", {"backbone": "basic_cnn", "options": INNER, "pooling": pooling}))
    return network, *network.init(jax.random.key(0))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_is_the_pooled_features_of_the_frames(pooling):
    network, params, stats = make(pooling)
    video = np.random.default_rng(0).normal(size=(2, 3, 32, 32, 3)).astype(np.float32)
    pictures = functional(NetworkSpec("basic_cnn", INNER))

    @jax.jit
    def both(params, stats, video):
        inner = {"backbone": params["backbone"]["encoder"]}, {"backbone": stats["backbone"]["encoder"]}
        each = [pictures(*inner, video[:, t])[0].features for t in range(video.shape[1])]
        return network(params, stats, video)[0].features, each

    features, each = both(params, stats, video)
    assert features.shape == (2, 32)
    np.testing.assert_allclose(features, getattr(np, pooling)(np.stack(each), axis=0), rtol=1e-5, atol=1e-6)
    assert np.ptp(np.stack(each), axis=0).max() > 1e-3


def test_size_and_normalisation_are_the_inner_networks():
    network = make("mean")[0].module.backbone
    assert network.preprocessing.size == 32
    assert network.feature_size == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "basic_cnn", "pooling": "meen"}, "no pooling 'meen'.*Did you mean 'mean'"),
        ({"backbone": "basic_cmm"}, "Did you mean 'basic_cnn'"),
        ({"backbone": "basic_cnn", "options": {"widht": 3}}, "widht"),
        ({"backbone": "conv1d", "options": {"shape": [8, 1]}}, "'conv1d', which does not take pictures"),
        ({"backbone": "r3d18", "options": {"width": 1}}, "'r3d18', which does not take pictures"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        functional(NetworkSpec("frames", options))
