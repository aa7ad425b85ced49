"""torchvision's R3D-18 files: a network with its names, written here from its description."""

import jax
import numpy as np
import pytest
import torch
from torch import nn

from emokd.errors import InputError
from emokd.models.network import functional
from emokd.weights.importing import import_file
from emokd.weights.resnet3d import foreign_module

WIDTH = 8


def unit(inputs, outputs, stride):
    return [nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs)]


class Residual(nn.Module):
    """Two 3x3x3 convolutions, numbered as in torchvision's `BasicBlock`."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Sequential(*unit(inputs, outputs, stride), nn.ReLU())
        self.conv2 = nn.Sequential(*unit(outputs, outputs, 1))
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x):
        residual = self.downsample(x) if hasattr(self, "downsample") else x
        return torch.relu(self.conv2(self.conv1(x)) + residual)


class Reference(nn.Module):
    """Stem 3x7x7 of stride 1x2x2, four stages of two blocks, the mean over time and space, a classifier."""

    def __init__(self, width, classes):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(width), nn.ReLU()
        )
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks = nn.Sequential(Residual(inputs, outputs, 2 if stage else 1), Residual(outputs, outputs, 1))
            self.add_module(f"layer{stage + 1}", blocks)
            inputs = outputs
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(x.mean((2, 3, 4)))


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


@pytest.fixture(scope="module")
def reference():
    return randomise(Reference(WIDTH, classes=5))


def test_parity(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "r3d_18.pth")
    model = import_file("r3d18", tmp_path / "r3d_18.pth", options={"width": WIDTH}, head="actions")
    assert model.spec.preprocessing.size == 112
    video = np.random.default_rng(0).normal(size=(2, 5, 32, 29, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, video)
    with torch.no_grad():
        expected = reference(torch.from_numpy(video).permute(0, 4, 1, 2, 3)).numpy()
    np.testing.assert_allclose(
        signals.intermediates["actions"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_nothing_is_left_over_and_nothing_unfilled(reference, tmp_path):
    state = reference.state_dict()
    del state["layer2.0.downsample.1.running_mean"]
    state["layer5.0.conv1.0.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "r3d_18.pth")
    with pytest.raises(InputError, match="in 2 places") as caught:
        import_file("r3d18", tmp_path / "r3d_18.pth", options={"width": WIDTH})
    assert "stats/backbone/stages/1/0/shortcut/norm/mean" in str(caught.value)
    assert "layer5.0.conv1.0.weight" in str(caught.value)


@pytest.mark.parametrize("path", ["backbone/stem/pool", "neck/conv", "backbone/stages/0/0/units/0", "backbone/fc"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)
