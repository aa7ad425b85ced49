"""The cost of R3D-18 against published and hand-made counts; its numbers are compared in test_resnet3d_weights."""

import functools

import jax
import jax.numpy as jnp
import pytest

from emokd.errors import InputError
from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional

ACTIONS = 400
PUBLISHED = 33_371_472
"""Parameters of torchvision's r3d_18 with its head over Kinetics-400."""


@functools.cache
def network(head=True):
    return functional(NetworkSpec("r3d18", heads={"actions": ACTIONS} if head else {}))


def test_parameters_are_the_published_ones():
    assert count_parameters(network().abstract[0]) == PUBLISHED
    assert count_parameters(network(head=False).abstract[0]) == PUBLISHED - (512 * ACTIONS + ACTIONS)
    assert network().module.backbone.feature_size == 512


def test_macs_are_the_published_ones_and_those_by_hand():
    frames, side = 16, 112
    macs = 3 * 7 * 7 * 3 * 64 * frames * (side // 2) ** 2
    for stage in range(4):
        inputs, width = 64 * 2 ** max(stage - 1, 0), 64 * 2**stage
        positions = (frames // 2**stage) * (side // 2 // 2**stage) ** 2
        macs += positions * (27 * inputs * width + 3 * 27 * width**2 + (inputs * width if stage else 0))
    macs += 512 * ACTIONS
    video = jax.ShapeDtypeStruct((1, frames, side, side, 3), jnp.float32)
    found = count_macs(lambda p, s, x: network()(p, s, x)[0], *network().abstract, video)
    assert found == macs
    assert found == pytest.approx(40.697e9, rel=1e-3)  # torchvision's model page


def test_width_below_one_is_refused():
    with pytest.raises(InputError, match="width >= 1, not 0"):
        functional(NetworkSpec("r3d18", {"width": 0}))
