"""EfficientFormer's size, its one input size, its pooling and its dtypes; parity is tested with its weights' map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.efficientformer import OFFSETS, MetaBlock, Pooling
from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional

torch = Lazily("torch")
flop_counter = Lazily("torch.utils.flop_counter")
transformers_efficientformer = Lazily("transformers.models.deprecated.efficientformer")

CASES = {
    "efficientformer_l1": ((3, 2, 6, 4), (48, 96, 224, 448), 1, 12_289_928, 1_291_284_736),
    "efficientformer_l3": ((4, 4, 12, 6), (64, 128, 320, 512), 4, 31_406_000, 3_906_573_312),
    "efficientformer_l7": ((6, 6, 18, 8), (96, 192, 384, 768), 8, 82_229_328, 10_119_325_696),
}


def images(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def outputs(network, *inputs):
    params, stats = network.abstract
    return jax.eval_shape(lambda p, s, *x: network(p, s, *x)[0], params, stats, *inputs)


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_macs_are_those_of_transformers(name):
    """With two heads of 1000 classes, as published; neither side allocates anything."""
    depths, widths, attention_blocks, parameters, macs = CASES[name]
    network = functional(NetworkSpec(name, heads={"objects": 1000, "distilled": 1000}))
    assert network.module.backbone.feature_size == widths[-1]
    assert count_parameters(network.abstract[0]) == parameters
    assert count_macs(lambda p, s, x: network(p, s, x)[0], *network.abstract, images(1, 224, 224, 3)) == macs
    config = transformers_efficientformer.EfficientFormerConfig(
        depths=list(depths),
        hidden_sizes=list(widths),
        hidden_size=widths[-1],
        dim=widths[-1],
        num_meta3d_blocks=attention_blocks,
        num_labels=1000,
    )
    with torch.device("meta"):
        reference = transformers_efficientformer.EfficientFormerForImageClassificationWithTeacher(config).eval()
        picture = torch.empty(1, 3, 224, 224)
    with flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        reference(picture)
    assert sum(p.numel() for p in reference.parameters()) == parameters
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("shape", [(256, 256, 3), (223, 224, 3), (96, 96, 3), (224, 224, 1)])
def test_other_sizes_are_refused_when_called(shape):
    network = functional(NetworkSpec("efficientformer_l1"))
    with pytest.raises(InputError, match=f"224 x 224 pixels only.*given {' x '.join(map(str, shape))}"):
        outputs(network, images(2, *shape))


def test_a_size_is_refused_when_made():
    with pytest.raises(InputError, match="cannot be made with the options .*size"):
        functional(NetworkSpec("efficientformer_l1", options={"size": 256}))


def test_pooling_ignores_what_is_outside_the_map():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    expected = np.empty_like(x)
    for i in range(4):
        for j in range(5):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            expected[:, i, j] = window.mean((1, 2)) - x[:, i, j]
    np.testing.assert_allclose(Pooling()(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


def test_biases_belong_to_absolute_offsets():
    """Numbered in the order in which pairs of points, row by row, first show them."""
    points = [(i, j) for i in range(7) for j in range(7)]
    numbers = {}
    for a in points:
        for b in points:
            offset = (abs(a[0] - b[0]), abs(a[1] - b[1]))
            assert OFFSETS[points.index(a), points.index(b)] == numbers.setdefault(offset, len(numbers))


def test_fresh_blocks_are_almost_the_identity():
    """Both layer scales begin at 1e-5."""
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 4))
    block = MetaBlock(Pooling(), lambda x: 3 * x, 4)
    np.testing.assert_allclose((block(x) - x) * 1e5, Pooling()(x) + 3 * x, atol=0.05)
    block.layer_scale_2[...] = jnp.array([1.0, 0, 0, 0])
    np.testing.assert_allclose(block(x)[..., 0], 4 * x[..., 0], rtol=1e-3)


def test_half_precision_stays_half_in_the_map_and_is_wide_in_the_features():
    network = functional(NetworkSpec("efficientformer_l1", heads={"expression": 8}))
    signals = outputs(network, images(2, 224, 224, 3, dtype=jnp.bfloat16))
    assert signals.intermediates["map"].shape == (2, 7, 7, 448)
    assert signals.intermediates["map"].dtype == jnp.bfloat16
    assert signals.features.dtype == signals.logits.dtype == jnp.float32
