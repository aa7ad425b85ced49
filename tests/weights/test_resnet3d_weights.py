"""torchvision's R3D-18 files: a network with its names, written here from its description."""

import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.network import functional
from emokd.weights.importing import import_file
from emokd.weights.resnet3d import foreign_module

torch = Lazily("torch")
torch_resnet3d = Lazily("torch_resnet3d")


WIDTH = 8


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
    return randomise(torch_resnet3d.Reference(WIDTH, classes=5))


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
