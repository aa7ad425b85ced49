"""EfficientNet files: networks with the names of both layouts, and the real Lite0 on photographs."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily
from PIL import Image

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights.efficientnet import timm
from emokd.weights.importing import find_layouts, import_file
from emokd.weights.mapping import TORCH, flatten

nn = Lazily("torch.nn")
torch = Lazily("torch")
torch_efficientnets = Lazily("torch_efficientnets")


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


@pytest.mark.parametrize(
    ("backbone", "channels", "repeats", "features", "head"),
    [
        ("efficientnet_b0", (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280, "objects"),
        pytest.param(
            *("efficientnet_b2", (16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408, "expression"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parity_with_timms_names(tmp_path, backbone, channels, repeats, features, head):
    """At an odd size, where padding matters; HSEmotion's classifier, of expressions, is in a Sequential."""
    linear = nn.Linear(features, 8)
    theirs = randomise(
        torch_efficientnets.Timm(channels, repeats, features, nn.Sequential(linear) if head == "expression" else linear)
    )
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    model = import_file(backbone, tmp_path / "model.pt", head=head)
    images = np.random.default_rng(0).normal(size=(2, 70, 83, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    found = signals.logits if head == "expression" else signals.intermediates[head]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1


B0 = ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280)
B2 = ((16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408)


def test_parity_with_torchvisions_names_and_style(tmp_path):
    """At an even size, where its padding differs from TensorFlow's; small variances, where epsilon counts."""
    theirs = randomise(torch_efficientnets.Torchvision(*B0, 5))
    for name, tensor in theirs.state_dict().items():
        if name == "features.0.1.running_var":
            tensor.mul_(1e-2)
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "model.pth")
    model = import_file("efficientnet_b0", tmp_path / "model.pth", head="objects")
    assert model.spec.options == {"style": "pytorch"}
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(
        signals.intermediates["objects"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_the_names_of_efficientnet_pytorch_lead_to_the_same_network_as_timms(tmp_path):
    """The PyTorch networks answer alike, and so the trees must be equal; timm's parity is tested above."""
    theirs = randomise(torch_efficientnets.Timm(*B0, nn.Linear(1280, 5)))
    other = torch_efficientnets.Numbered(*B0, 5).eval()
    pairs = zip(theirs.state_dict().values(), other.state_dict().values(), strict=True)
    for ours, copy in pairs:
        copy.copy_(ours)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), other(images), rtol=1e-4, atol=1e-5)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    torch.save(other.state_dict(), tmp_path / "other.pth")
    one, two = (import_file("efficientnet_b0", tmp_path / f"{name}.pth") for name in ("timm", "other"))
    assert one.spec == two.spec
    assert one.spec.options == {}
    for ours, copy in zip(
        jax.tree.leaves((one.params, one.stats)), jax.tree.leaves((two.params, two.stats)), strict=True
    ):
        np.testing.assert_array_equal(ours, copy)


@pytest.mark.parametrize(
    ("library", "label"), [("Torchvision", "torchvision"), ("Numbered", "efficientnet_pytorch"), ("Timm", "timm")]
)
def test_every_array_of_b2_has_its_place(library, label):
    """Names and shapes; parity of values is B0's."""
    with torch.device("meta"):
        reference = getattr(torch_efficientnets, library)
        state = reference(*B2, nn.Linear(1408, 8) if library == "Timm" else 8).state_dict()
    (names,) = [names for names in find_layouts("efficientnet_b2") if names.label == label]
    spec = NetworkSpec("efficientnet_b2", heads={"objects": 8})
    sizes = {}
    for tree in functional(spec).abstract:
        for path, leaf in flatten(tree).items():
            module, _, array = path.rpartition("/")
            sizes[TORCH.foreign_name(names.foreign_module(module), array)] = leaf.size
    assert sizes == {k: v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_a_style_that_is_not_the_files_is_refused(tmp_path):
    torch.save(torch_efficientnets.Torchvision(*B0, 5).state_dict(), tmp_path / "model.pth")
    with pytest.raises(InputError, match="model.pth has the names of torchvision.*style 'pytorch', not 'tensorflow'"):
        import_file("efficientnet_b0", tmp_path / "model.pth", options={"style": "tensorflow"})
    with pytest.raises(InputError, match="no style 'torch' of EfficientNet. Did you mean 'pytorch'"):
        functional(NetworkSpec("efficientnet_b0", {"style": "torch"}))


@pytest.fixture(scope="module")
def timms():
    return torch_efficientnets.Timm(*B0, nn.Linear(1280, 5)).state_dict()


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("tf_efficientnet_b0_ns-c0e6a31c.pth", {}, {}),
        ("enet_b0_8_best_vgaf.pth", {}, {}),
        ("efficientnet_b0_ra-3dd342df.pth", {}, {"style": "pytorch"}),
        ("model.pth", {"style": "pytorch"}, {"style": "pytorch"}),
    ],
)
def test_the_style_of_timms_names_is_guessed_and_said(timms, tmp_path, caplog, file, options, expected):
    torch.save(timms, tmp_path / file)
    with caplog.at_level("WARNING", "absl"):
        model = import_file("efficientnet_b0", tmp_path / file, options=options)
    assert model.spec.options == expected
    assert ("taken as style" in caplog.text) == (not options)


def test_a_plain_classifier_is_any_other_head():
    assert timm("heads/objects") == "classifier"


@pytest.mark.parametrize("path", ["backbone/stages/1/0/pool/conv", "backbone/stem/bias", "neck/conv"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        timm(path)


def photographs(folder, names, size):
    """The middle of each photograph, pixels in [0, 1]."""
    with zipfile.ZipFile(folder / "oasis" / "images.zip") as archive:
        for name in names or archive.namelist()[::12]:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            side = round(min(image.size) * 0.875)
            left, top = ((length - side) // 2 for length in image.size)
            image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
            yield np.asarray(image, np.float32) / 255


@pytest.fixture
def lite0(data_directory):
    file = data_directory / "weights/efficientnet-lite0-57934424.pth"
    return import_file("efficientnet_lite0", file, head="objects")


def test_real_lite0_names_photographs(lite0, data_directory):
    names = [f"{name}.jpg" for name in OBJECTS]
    pixels = jnp.asarray(np.stack(list(photographs(data_directory, names, 224))))
    network = jax.jit(functional(lite0.spec))
    signals, _ = network(lite0.params, lite0.stats, lite0.spec.preprocessing(pixels))
    assert signals.intermediates["objects"].argmax(1).tolist() == list(OBJECTS.values())


def test_running_statistics_of_lite0_fit_its_normalisation(lite0, data_directory):
    """The stem's variances over photographs; with ImageNet's mean and deviation they are five times too large."""
    pixels = np.stack(list(photographs(data_directory, None, 224)))
    inputs = torch.from_numpy(np.array(lite0.spec.preprocessing(pixels))).permute(0, 3, 1, 2)
    kernel = torch.from_numpy(np.array(lite0.params["backbone"]["stem"]["conv"]["kernel"])).permute(3, 2, 0, 1)
    padded = nn.functional.pad(inputs, (0, 1, 0, 1))
    found = nn.functional.conv2d(padded, kernel, stride=2).var((0, 2, 3)).numpy()
    stored = np.array(lite0.stats["backbone"]["stem"]["norm"]["var"])
    alive = stored > 1e-3
    assert np.median(found[alive] / stored[alive]) == pytest.approx(1, abs=0.15)
