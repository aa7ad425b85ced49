"""torchvision's MobileNetV2 files: a network with its names, and the real one on photographs."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from emokd.models.network import NetworkSpec, functional
from emokd.weights.importing import import_file
from emokd.weights.mobilenet_v2 import foreign_module

OBJECTS = {"Acorns 1": 988, "Acorns 3": 988, "Volcano 1": 980, "Volcano 3": 980, "Zebra 1": 340}
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def unit(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class Residual(nn.Module):
    """An inverted residual whose layers are numbered as in torchvision's."""

    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        hidden = inputs * expansion
        layers = [unit(inputs, hidden, 1)] if expansion > 1 else []
        layers += [unit(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.skip else self.conv(x)


class Reference(nn.Module):
    """MobileNetV2 at width 1, written from the paper's Table 2."""

    def __init__(self, classes):
        super().__init__()
        layers, channels = [unit(3, 32, 3, 2)], 32
        for expansion, outputs, repeats, stride in STAGES:
            for repeat in range(repeats):
                layers.append(Residual(channels, outputs, expansion, 1 if repeat else stride))
                channels = outputs
        self.features = nn.Sequential(*layers, unit(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def randomise(model, seed=0):
    """Random parameters and running statistics under which activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or (name.endswith("weight") and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def test_parity(tmp_path):
    """At an odd size, where padding matters."""
    theirs = randomise(Reference(5))
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    model = import_file("mobilenet_v2", tmp_path / "mobilenet.pth", head="objects")
    images = np.random.default_rng(0).normal(size=(2, 73, 70, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(
        signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


TIMM = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
TIMM_EXPANDED = {
    **{"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"},
    **{"2": "conv_pwl", "3": "bn3"},
}


def timms_name(name):
    """timm's name of torchvision's, from the descriptions of both."""
    if name.startswith("classifier."):
        return name.replace("classifier.1", "classifier")
    _, place, *rest = name.split(".")
    leaf = rest[-1]
    if place in ("0", "18"):
        return f"{ {'0': ('conv_stem', 'bn1'), '18': ('conv_head', 'bn2')}[place][int(rest[0])] }.{leaf}"
    block, stage = int(place) - 1, 0
    while block >= STAGES[stage][2]:
        block, stage = block - STAGES[stage][2], stage + 1
    inner = ".".join(rest[1:-1])
    return f"blocks.{stage}.{block}.{(TIMM_EXPANDED if stage else TIMM)[inner]}.{leaf}"


def test_timms_names_lead_to_the_same_network(tmp_path):
    theirs = randomise(Reference(5)).state_dict()
    renamed = {timms_name(name): value for name, value in theirs.items()}
    assert "blocks.0.0.conv_dw.weight" in renamed
    assert "blocks.6.0.bn3.running_var" in renamed
    torch.save(theirs, tmp_path / "one.pth")
    torch.save({"state_dict": {f"backbone.{name}": value for name, value in renamed.items()}}, tmp_path / "two.pth")
    one, two = (import_file("mobilenet_v2", tmp_path / f"{name}.pth") for name in ("one", "two"))
    for ours, copy in zip(
        jax.tree.leaves((one.params, one.stats)), jax.tree.leaves((two.params, two.stats)), strict=True
    ):
        np.testing.assert_array_equal(ours, copy)


def test_the_published_file_agrees_with_the_reference(data_directory):
    path = data_directory / "weights/mobilenet_v2-b0353104.pth"
    theirs = Reference(1000)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    model = import_file("mobilenet_v2", path, head="objects")
    images = np.random.default_rng(0).normal(size=(2, 96, 97, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs.double().eval()(torch.from_numpy(images).double().permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(
        signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    assert np.ptp(expected) > 1


@pytest.mark.parametrize(
    "path", ["backbone/blocks/0/pool/conv", "backbone/stem/bias", "neck/conv", "backbone/blocks/3/depthwise"]
)
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)


def photographs(folder, size):
    """The middle of each photograph, pixels in [0, 1]."""
    with zipfile.ZipFile(folder / "oasis" / "images.zip") as archive:
        for name in OBJECTS:
            image = Image.open(io.BytesIO(archive.read(f"{name}.jpg"))).convert("RGB")
            side = round(min(image.size) * 0.875)
            left, top = ((length - side) // 2 for length in image.size)
            image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
            yield np.asarray(image, np.float32) / 255


def test_real_weights_name_photographs(data_directory):
    model = import_file("mobilenet_v2", data_directory / "weights/mobilenet_v2-b0353104.pth", head="objects")
    pixels = jnp.asarray(np.stack(list(photographs(data_directory, model.spec.preprocessing.size))))
    network = jax.jit(functional(NetworkSpec("mobilenet_v2", heads=model.spec.heads)))
    signals, _ = network(model.params, model.stats, model.spec.preprocessing(pixels))
    assert signals.intermediates["objects"].argmax(1).tolist() == list(OBJECTS.values())
