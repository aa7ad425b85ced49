"""Every architecture by its name."""

import jax
import jax.numpy as jnp
import pytest

from emokd.models.network import NetworkSpec, functional
from emokd.models.registry import BACKBONES

NO_PICTURES = {"r3d18", "frames", "spectrogram_resnet18", "conv1d", "mlp"}
"""Backbones of videos, traces and tables; whatever else is registered must take pictures."""


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - NO_PICTURES))
def test_any_picture_backbone_can_carry_the_joint_head(name):
    """Expressions, valence and arousal, at the backbone's own size."""
    network = functional(NetworkSpec(name, heads={"expression": 8, "valence_arousal": 2}))
    backbone = network.module.backbone
    size, channels = backbone.preprocessing.size, backbone.preprocessing.channels
    pixels = jax.ShapeDtypeStruct((3, size, size, channels), jnp.float32)
    signals, _ = jax.eval_shape(network, *network.abstract, pixels)
    assert signals.features.shape == (3, backbone.feature_size)
    assert (signals.logits.shape, signals.logits.dtype) == ((3, 8), jnp.float32)
    assert (signals.valence_arousal.shape, signals.valence_arousal.dtype) == ((3, 2), jnp.float32)
