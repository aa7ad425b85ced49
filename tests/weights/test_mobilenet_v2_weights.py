"""torchvision's MobileNetV2 files: a network with its names, and the real one on photographs."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily
from PIL import Image

from emokd.models.network import NetworkSpec, functional
from emokd.weights.importing import import_file
from emokd.weights.mobilenet_v2 import foreign_module

torch = Lazily("torch")
torch_mobilenet_v2 = Lazily("torch_mobilenet_v2")


OBJECTS = {"Acorns 1": 988, "Acorns 3": 988, "Volcano 1": 980, "Volcano 3": 980, "Zebra 1": 340}


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
    theirs = randomise(torch_mobilenet_v2.Reference(5))
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
    while block >= torch_mobilenet_v2.STAGES[stage][2]:
        block, stage = block - torch_mobilenet_v2.STAGES[stage][2], stage + 1
    inner = ".".join(rest[1:-1])
    return f"blocks.{stage}.{block}.{(TIMM_EXPANDED if stage else TIMM)[inner]}.{leaf}"


def test_timms_names_lead_to_the_same_network(tmp_path):
    theirs = randomise(torch_mobilenet_v2.Reference(5)).state_dict()
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
    theirs = torch_mobilenet_v2.Reference(1000)
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
