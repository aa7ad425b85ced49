"""EmoNet against a network written from its description in PyTorch."""

import dataclasses
import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))


from lazily import Lazily

from emokd.errors import InputError
from emokd.models.emonet import double, halve
from emokd.models.macs import count_macs
from emokd.models.network import NetworkSpec, count_parameters, functional
from emokd.weights.importing import import_file

torch = Lazily("torch")
nn = Lazily("torch.nn")
F = Lazily("torch.nn.functional")
torch_emonet = Lazily("torch_emonet")


def randomise(model, seed=0):
    """Random parameters; running statistics of the size of what they meet, so that activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)

    def set_statistics(norm, inputs):
        variance = inputs[0].var()
        norm.running_mean.copy_(0.3 * variance**0.5 * torch.randn(norm.num_features, generator=generator))
        norm.running_var.copy_(variance * (torch.rand(norm.num_features, generator=generator) + 0.5))

    hooks = []
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 10
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
        for heatmaps in (model.l0, model.l1):
            heatmaps.weight.mul_(0.1)  # their sum multiplies everything that follows
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                hooks.append(module.register_forward_pre_hook(set_statistics))
        model.eval()(torch.rand((1, 3, 256, 256), generator=generator))
    for hook in hooks:
        hook.remove()
    return model


@pytest.fixture(scope="module")
def reference():
    return randomise(torch_emonet.EmoNet(8))


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "emonet_8.pth"
    torch.save({f"module.{name}": value for name, value in reference.state_dict().items()}, path)
    return import_file("emonet", path)


@pytest.fixture(scope="module")
def network(model):
    return functional(model.spec)


def check_agreement(reference, model, network, shape):
    images = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    with torch.no_grad():
        wanted = reference(torch.tensor(images).permute(0, 3, 1, 2))
    signals, _ = jax.jit(network)(model.params, model.stats, images)
    found = {
        "features": signals.features,
        "heatmaps": signals.intermediates["heatmaps"].transpose(0, 3, 1, 2),
        "expression": signals.logits,
        "valence": signals.valence_arousal[:, 0],
        "arousal": signals.valence_arousal[:, 1],
    }
    scale = {name: wanted[name].std().item() for name in ("features", "heatmaps", "expression")}
    scale["valence"] = scale["arousal"] = scale["expression"]
    for name, value in wanted.items():
        assert scale[name] > 1e-2, f"{name} hardly varies: the comparison would be empty"
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4 * scale[name], err_msg=name)
    attention = signals.intermediates["attention"][..., 0]
    summed = wanted["heatmaps"].sum(1).numpy()
    np.testing.assert_allclose(attention, summed, rtol=1e-4, atol=1e-4 * summed.std())


def test_agrees_with_pytorch_on_a_picture(reference, model, network):
    check_agreement(reference, model, network, (1, 256, 256, 3))


@pytest.mark.slow
def test_agrees_with_pytorch_on_small_oblong_pictures(reference, model, network):
    """Height and width must not be confused."""
    check_agreement(reference, model, network, (2, 64, 128, 3))


@pytest.mark.slow
def test_agrees_with_pytorch_on_a_batch(reference, model, network):
    check_agreement(reference, model, network, (8, 256, 256, 3))


def test_resolution_changes_as_in_pytorch():
    maps = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    channels_first = torch.tensor(maps).permute(0, 3, 1, 2)
    doubled = F.interpolate(channels_first, scale_factor=2, mode="nearest").permute(0, 2, 3, 1)
    np.testing.assert_array_equal(double(jax.numpy.asarray(maps)), doubled)
    np.testing.assert_array_equal(halve(maps), F.max_pool2d(channels_first, 2).permute(0, 2, 3, 1))


def test_input_is_rgb_in_0_1(model):
    preprocessing = model.spec.preprocessing
    assert (preprocessing.size, preprocessing.channels) == (256, 3)
    pixels = np.random.default_rng(0).uniform(size=(1, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(preprocessing(pixels), pixels)


def test_cost_is_as_counted_elsewhere(network):
    """13.96 M parameters; 16.93 G multiply-accumulates, the publication on the students says 16.99."""
    params, stats = network.abstract
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)
    macs = count_macs(lambda p, s, x: network(p, s, x)[0], params, stats, image)
    assert round(count_parameters(params) / 1e6, 2) == 13.96
    assert round(macs / 1e9, 2) == 16.93


def test_parameters_are_those_of_the_reference(reference, network):
    assert count_parameters(network.abstract[0]) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("shape", [(1, 96, 64, 3), (1, 64, 224, 3), (1, 64, 64, 1)])
def test_other_sizes_are_refused(network, shape):
    with pytest.raises(InputError, match=f"not {shape[1]} x {shape[2]} with {shape[3]} channels"):
        jax.eval_shape(network, *network.abstract, jax.ShapeDtypeStruct(shape, np.float32))


@pytest.mark.slow
def test_it_learns_on_small_pictures():
    """A fresh network in training: finite gradients reach every parameter, landmarks' included, and statistics move."""
    network = functional(NetworkSpec("emonet", heads={"expression": 5}))
    params, stats = network.init(jax.random.key(0))
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype(np.float32)

    def loss(params):
        signals, moved = network(params, stats, images, train=True)
        return (signals.logits**2).mean(), moved

    gradients, moved = jax.jit(jax.grad(loss, has_aux=True))(params)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    heatmaps = gradients["backbone"]["aligners"][1]["heatmaps"]["kernel"]
    assert np.abs(heatmaps).max() > 0
    before, after = (jax.tree.leaves(tree) for tree in (stats, moved))
    assert all(np.any(b != a) for b, a in zip(before, after, strict=True))


def test_half_precision_stays_half_until_the_features(model, network):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jax.numpy.bfloat16)
    signals, _ = jax.eval_shape(network, model.params, model.stats, image)
    assert signals.intermediates["heatmaps"].dtype == jax.numpy.bfloat16
    assert signals.features.dtype == np.float32


def test_specification_names_the_heads(model):
    assert dataclasses.asdict(model.spec)["heads"] == {"expression": 8, "valence_arousal": 2}
