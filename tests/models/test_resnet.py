"""ResNet against transformers' ResNet and against a network written here, with torchvision's names."""

import functools

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, count_parameters, functional
from emokd.weights.importing import import_file

torch = Lazily("torch")
nn = Lazily("torch.nn")
transformers = Lazily("transformers")


def randomise(model, seed=0):
    """Random parameters and running statistics, scaled so that activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running_var" in name or (name.endswith("weight") and tensor.ndim == 1):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim > 1:
                fan = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan**0.5)
            elif tensor.is_floating_point():
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def torchvision_names(state, depths, bottleneck):
    """Renames the state dict of transformers' ResNet into torchvision's."""
    names = {
        "resnet.embedder.embedder.convolution": "conv1",
        "resnet.embedder.embedder.normalization": "bn1",
        "classifier.1": "fc",
    }
    for i, depth in enumerate(depths):
        for j in range(depth):
            old, new = f"resnet.encoder.stages.{i}.layers.{j}", f"layer{i + 1}.{j}"
            for k in range(3 if bottleneck else 2):
                names[f"{old}.layer.{k}.convolution"] = f"{new}.conv{k + 1}"
                names[f"{old}.layer.{k}.normalization"] = f"{new}.bn{k + 1}"
            names[f"{old}.shortcut.convolution"] = f"{new}.downsample.0"
            names[f"{old}.shortcut.normalization"] = f"{new}.downsample.1"
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


CASES = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
}


def make_reference(name, classes, channels=3):
    kind, depths, sizes = CASES[name]
    config = transformers.ResNetConfig(
        num_channels=channels, layer_type=kind, depths=list(depths), hidden_sizes=list(sizes), num_labels=classes
    )
    return randomise(transformers.ResNetForImageClassification(config)), depths, kind == "bottleneck"


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_transformers_through_a_places365_file(name, tmp_path):
    reference, depths, bottleneck = make_reference(name, classes=365)
    state = torchvision_names(reference.state_dict(), depths, bottleneck)
    wrapped = {"epoch": 90, "arch": name, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / f"{name}_places365.pth.tar")
    model = import_file(name, tmp_path / f"{name}_places365.pth.tar", head="scenes")
    images = np.random.default_rng(0).normal(size=(2, 65, 80, 3)).astype(np.float32)
    with torch.no_grad():
        pixels = torch.tensor(images).permute(0, 3, 1, 2)
        features = reference.resnet(pixels).pooler_output[:, :, 0, 0].numpy()
        logits = reference(pixels).logits.numpy()
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    np.testing.assert_allclose(signals.features, features, rtol=1e-4, atol=1e-4 * features.std())
    np.testing.assert_allclose(signals.intermediates["scenes"], logits, rtol=1e-4, atol=1e-4 * logits.std())
    assert signals.logits is None
    assert model.spec.heads == {"scenes": 365}


def test_one_channel_stem(tmp_path):
    reference, depths, bottleneck = make_reference("resnet18", classes=4, channels=1)
    torch.save(torchvision_names(reference.state_dict(), depths, bottleneck), tmp_path / "r.pt")
    model = import_file("resnet18", tmp_path / "r.pt", options={"channels": 1}, leave_out=["fc"])
    assert model.spec.preprocessing.channels == 1
    assert not model.spec.heads
    traces = np.random.default_rng(0).normal(size=(2, 40, 33, 1)).astype(np.float32)
    with torch.no_grad():
        features = reference.resnet(torch.tensor(traces).permute(0, 3, 1, 2)).pooler_output[:, :, 0, 0].numpy()
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, traces)
    np.testing.assert_allclose(signals.features, features, rtol=1e-4, atol=1e-4 * features.std())


def test_training_moves_statistics_as_pytorch_does(tmp_path):
    """The first BatchNorm only: Flax keeps the biased variance, PyTorch the unbiased one."""
    reference, depths, bottleneck = make_reference("resnet18", classes=4)
    torch.save(torchvision_names(reference.state_dict(), depths, bottleneck), tmp_path / "r.pt")
    model = import_file("resnet18", tmp_path / "r.pt", head="expression")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    norm = nn.BatchNorm2d(64)
    norm.load_state_dict(reference.resnet.embedder.embedder.normalization.state_dict())
    norm.train()
    with torch.no_grad():
        norm(reference.resnet.embedder.embedder.convolution(torch.tensor(images).permute(0, 3, 1, 2)))
    network = functional(model.spec)
    train = jax.jit(functools.partial(network, train=True))
    _, stats = train(model.params, model.stats, images)
    moved = stats["backbone"]["stem"]["norm"]
    np.testing.assert_allclose(moved["mean"], norm.running_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved["var"], norm.running_var, rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "features"), [("resnet18", 11_689_512, 512), ("resnet50", 25_557_032, 2048)]
)
def test_parameter_counts_are_the_published_ones(name, parameters, features):
    network = functional(NetworkSpec(name, heads={"objects": 1000}))
    assert count_parameters(network.abstract[0]) == parameters
    assert network.module.backbone.feature_size == features


def test_two_channels_are_refused():
    with pytest.raises(InputError, match="1 or 3 input channels, not 2"):
        functional(NetworkSpec("resnet18", options={"channels": 2}))
