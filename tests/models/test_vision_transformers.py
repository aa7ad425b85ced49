"""DINOv2 and CLIP's image tower: sizes, what they cost, what they refuse; parity is tested with their weights' maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.clip import ClipVision
from emokd.models.dinov2 import DINOv2
from emokd.models.macs import count_macs
from emokd.models.network import Functional, Network, NetworkSpec, count_parameters, functional
from emokd.models.position_embeddings import resample
from emokd.models.transformer import Dimensions

torch = Lazily("torch")

TINY = {
    "dinov2": lambda rngs: DINOv2(Dimensions(8, 2, 2, 7, 5), 2, "class_and_patches", 28, rngs=rngs),
    "clip": lambda rngs: ClipVision(Dimensions(8, 2, 2, 7, 4), 6, rngs=rngs),
}


def images(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def outputs(network, *inputs):
    params, stats = network.abstract
    return jax.eval_shape(lambda p, s, *x: network(p, s, *x)[0], params, stats, *inputs)


def macs(name, options, size):
    network = functional(NetworkSpec(name, options))
    return count_macs(lambda p, s, x: network(p, s, x)[0], *network.abstract, images(1, size, size, 3))


def block_macs(tokens, width):
    """Four layers of the attention, its scores and mixtures, and the two layers of the MLP."""
    return 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * 4 * width


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2s_macs_by_hand(registers):
    """At the trained grid, and at 16 x 16, where rows and then columns of the positions are interpolated once."""
    for grid, positions in ((37, 0), (16, 384 * (16 * 37 * 37 + 16 * 16 * 37))):
        expected = grid**2 * (14 * 14 * 3) * 384 + 12 * block_macs(1 + registers + grid**2, 384) + positions
        assert macs("dinov2_small", {"registers": registers}, 14 * grid) == expected


def test_clips_macs_by_hand():
    expected = 49 * (32 * 32 * 3) * 768 + 12 * block_macs(50, 768) + 768 * 512
    assert macs("clip_vit_b32", {}, 224) == expected


def test_parameters_by_hand():
    def block(width, scales):
        return 4 * width * (width + 1) + 4 * width + 4 * width * (width + 1) + width * (4 * width + 1) + scales * width

    dinov2 = 14 * 14 * 3 * 384 + 384 + 384 + 1370 * 384 + 12 * block(384, 2) + 2 * 384
    clip = 32 * 32 * 3 * 768 + 768 + 50 * 768 + 12 * block(768, 0) + 4 * 768 + 768 * 512
    for name, expected in (("dinov2_small", dinov2), ("clip_vit_b32", clip)):
        assert count_parameters(functional(NetworkSpec(name)).abstract[0]) == expected


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (9, 9), (4, 11), (1, 2)])
def test_positions_are_interpolated_as_pytorch_does(antialias, size):
    grid = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid).permute(2, 0, 1)[None], size=size, mode="bicubic", antialias=antialias
    )
    found = resample(jnp.asarray(grid), *size, antialias=antialias)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), rtol=1e-5, atol=1e-5)


def test_positions_of_the_trained_grid_are_not_touched():
    grid = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32))
    np.testing.assert_array_equal(resample(grid, 6, 6, antialias=True), grid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "clas"}, "no features 'clas'. Did you mean 'class'"),
        ({"registers": -1}, "0 or more registers, not -1"),
        ({"size": 230}, "multiples of 14 .* 230 x 230. Set the network's size to 224 or 238"),
        ({"size": 0}, "multiples of 14 .* 0 x 0"),
    ],
)
def test_dinov2_refuses_what_it_is_not(options, message):
    with pytest.raises(InputError, match=message):
        functional(NetworkSpec("dinov2_small", options))


def test_pictures_of_other_sizes_are_refused():
    with pytest.raises(InputError, match="multiples of 14 .* 224 x 225"):
        outputs(functional(NetworkSpec("dinov2_small")), images(2, 224, 225, 3))
    with pytest.raises(InputError, match="224 x 224 pixels only.*given 256 x 224 x 3"):
        outputs(functional(NetworkSpec("clip_vit_b32")), images(2, 256, 224, 3))


@pytest.mark.parametrize("name", TINY)
def test_half_precision_stays_half_in_the_map_and_is_wide_in_the_features(name):
    network = Functional(lambda rngs: Network(TINY[name](rngs), {"expression": 3}, rngs=rngs))
    signals = outputs(network, images(2, 28, 28, 3, dtype=jnp.bfloat16))
    assert signals.intermediates["map"].shape == (2, 4, 4, 8)
    assert signals.intermediates["map"].dtype == jnp.bfloat16
    assert signals.features.dtype == signals.logits.dtype == jnp.float32
    assert signals.features.shape == (2, 16 if name == "dinov2" else 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_bfloat16_and_rematerialisation_change_gradients_little_or_nothing(name):
    def make(rngs):
        return Network(TINY[name](rngs), {"expression": 3}, rngs=rngs)

    pictures = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    params, stats = Functional(make).init(jax.random.key(0))

    def gradient(**options):
        network = Functional(make, **options)
        function = jax.grad(lambda p: (network(p, stats, pictures)[0].logits ** 2).sum())
        text = str(jax.make_jaxpr(function)(params))
        return jax.tree.leaves(jax.jit(function)(params)), text.count("checkpoint") + text.count("remat")

    exact, none = gradient()
    again, blocks = gradient(remat=True)
    assert none == 0 and blocks > 0
    for found, expected in zip(again, exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    half, _ = gradient(precision="bfloat16")
    error = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(half, exact, strict=True)))
    assert 0 < error < 0.1 * np.sqrt(sum((leaf**2).sum() for leaf in exact))
