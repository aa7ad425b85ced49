"""EfficientNet files: networks with the names of both layouts, and the real Lite0 on photographs."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.weights.efficientnet import timm
from emokd.weights.importing import find_layouts, import_file
from emokd.weights.mapping import TORCH, flatten

OBJECTS = {"Acorns 1": 988, "Acorns 3": 988, "Volcano 1": 980, "Volcano 3": 980, "Zebra 1": 340}


class Same(nn.Conv2d):
    """Convolution with TensorFlow's padding: as many outputs as inputs over stride, the odd zero behind."""

    def forward(self, x):
        pads = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class Gate(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        return x * self.conv_expand(nn.functional.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """A block of timm's first stage."""

    def __init__(self, inputs, outputs, stride, kernel):
        super().__init__()
        self.conv_dw, self.bn1 = Same(inputs, inputs, kernel, stride, groups=inputs, bias=False), norm(inputs)
        self.se = Gate(inputs, inputs // 4)
        self.conv_pw, self.bn2 = Same(inputs, outputs, 1, bias=False), norm(outputs)
        self.skip = inputs == outputs and stride == 1

    def forward(self, inputs):
        x = self.se(nn.functional.silu(self.bn1(self.conv_dw(inputs))))
        x = self.bn2(self.conv_pw(x))
        return inputs + x if self.skip else x


class Inverted(nn.Module):
    """A block of timm's other stages."""

    def __init__(self, inputs, outputs, stride, kernel):
        super().__init__()
        hidden = inputs * 6
        self.conv_pw, self.bn1 = Same(inputs, hidden, 1, bias=False), norm(hidden)
        self.conv_dw, self.bn2 = Same(hidden, hidden, kernel, stride, groups=hidden, bias=False), norm(hidden)
        self.se = Gate(hidden, inputs // 4)
        self.conv_pwl, self.bn3 = Same(hidden, outputs, 1, bias=False), norm(outputs)
        self.skip = inputs == outputs and stride == 1

    def forward(self, inputs):
        silu = nn.functional.silu
        x = silu(self.bn1(self.conv_pw(inputs)))
        x = self.se(silu(self.bn2(self.conv_dw(x))))
        x = self.bn3(self.conv_pwl(x))
        return inputs + x if self.skip else x


class Timm(nn.Module):
    """An EfficientNet with timm's names."""

    def __init__(self, channels, repeats, head, classifier):
        super().__init__()
        self.conv_stem, self.bn1 = Same(3, 32, 3, 2, bias=False), norm(32)
        strides, kernels = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)
        stages, inputs = [], 32
        for index, (outputs, count) in enumerate(zip(channels, repeats, strict=True)):
            block = Separable if index == 0 else Inverted
            blocks = []
            for repeat in range(count):
                blocks.append(block(inputs, outputs, 1 if repeat else strides[index], kernels[index]))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = Same(inputs, head, 1, bias=False), norm(head)
        self.classifier = classifier

    def forward(self, x):
        x = self.blocks(nn.functional.silu(self.bn1(self.conv_stem(x))))
        x = nn.functional.silu(self.bn2(self.conv_head(x)))
        return self.classifier(x.mean((2, 3)))


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
    theirs = randomise(Timm(channels, repeats, features, nn.Sequential(linear) if head == "expression" else linear))
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    model = import_file(backbone, tmp_path / "model.pt", head=head)
    images = np.random.default_rng(0).normal(size=(2, 70, 83, 3)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    found = signals.logits if head == "expression" else signals.intermediates[head]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1


class Numbered(nn.Module):
    """An EfficientNet with the names of efficientnet_pytorch, whose blocks are numbered in one row."""

    def __init__(self, channels, repeats, head, classes):
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), norm(32)
        strides, kernels = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)
        blocks, inputs = [], 32
        for index, (outputs, count) in enumerate(zip(channels, repeats, strict=True)):
            for repeat in range(count):
                blocks.append(
                    NumberedBlock(inputs, outputs, 1 if repeat else strides[index], kernels[index], index > 0)
                )
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Same(inputs, head, 1, bias=False), norm(head)
        self._fc = nn.Linear(head, classes)

    def forward(self, x):
        x = nn.functional.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(nn.functional.silu(self._bn1(self._conv_head(x))).mean((2, 3)))


class NumberedBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, kernel, expands):
        super().__init__()
        hidden = inputs * (6 if expands else 1)
        if expands:
            self._expand_conv, self._bn0 = Same(inputs, hidden, 1, bias=False), norm(hidden)
        self._depthwise_conv = Same(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._se_reduce, self._se_expand = Same(hidden, inputs // 4, 1), Same(inputs // 4, hidden, 1)
        self._project_conv, self._bn2 = Same(hidden, outputs, 1, bias=False), norm(outputs)
        self.skip, self.expands = inputs == outputs and stride == 1, expands

    def forward(self, inputs):
        silu = nn.functional.silu
        x = silu(self._bn0(self._expand_conv(inputs))) if self.expands else inputs
        x = silu(self._bn1(self._depthwise_conv(x)))
        x = x * self._se_expand(silu(self._se_reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        x = self._bn2(self._project_conv(x))
        return inputs + x if self.skip else x


class Squeeze(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        return x * self.fc2(nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class TorchvisionBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, kernel, expands):
        super().__init__()
        hidden = inputs * (6 if expands else 1)
        self.block = nn.Sequential(
            *([symmetric(inputs, hidden, 1, 1)] if expands else []),
            symmetric(hidden, hidden, kernel, stride, groups=hidden),
            Squeeze(hidden, inputs // 4),
            symmetric(hidden, outputs, 1, 1)[:2],
        )
        self.skip = inputs == outputs and stride == 1

    def forward(self, x):
        return x + self.block(x) if self.skip else self.block(x)


def symmetric(inputs, outputs, kernel, stride, groups=1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Torchvision(nn.Module):
    """An EfficientNet with torchvision's names, padding and epsilon."""

    def __init__(self, channels, repeats, head, classes):
        super().__init__()
        strides, kernels = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)
        stages, inputs = [symmetric(3, 32, 3, 2)], 32
        for index, (outputs, count) in enumerate(zip(channels, repeats, strict=True)):
            blocks = []
            for repeat in range(count):
                stride = 1 if repeat else strides[index]
                blocks.append(TorchvisionBlock(inputs, outputs, stride, kernels[index], index > 0))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stages, symmetric(inputs, head, 1, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(head, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


B0 = ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280)
B2 = ((16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408)


def test_parity_with_torchvisions_names_and_style(tmp_path):
    """At an even size, where its padding differs from TensorFlow's; small variances, where epsilon counts."""
    theirs = randomise(Torchvision(*B0, 5))
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
    theirs = randomise(Timm(*B0, nn.Linear(1280, 5)))
    other = Numbered(*B0, 5).eval()
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


@pytest.mark.parametrize("theirs", [Torchvision, Numbered, Timm])
def test_every_array_of_b2_has_its_place(theirs):
    """Names and shapes; parity of values is B0's."""
    with torch.device("meta"):
        state = theirs(*B2, nn.Linear(1408, 8) if theirs is Timm else 8).state_dict()
    label = {Torchvision: "torchvision", Numbered: "efficientnet_pytorch", Timm: "timm"}[theirs]
    (names,) = [names for names in find_layouts("efficientnet_b2") if names.label == label]
    spec = NetworkSpec("efficientnet_b2", heads={"objects": 8})
    sizes = {}
    for tree in functional(spec).abstract:
        for path, leaf in flatten(tree).items():
            module, _, array = path.rpartition("/")
            sizes[TORCH.foreign_name(names.foreign_module(module), array)] = leaf.size
    assert sizes == {k: v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_a_style_that_is_not_the_files_is_refused(tmp_path):
    torch.save(Torchvision(*B0, 5).state_dict(), tmp_path / "model.pth")
    with pytest.raises(InputError, match="model.pth has the names of torchvision.*style 'pytorch', not 'tensorflow'"):
        import_file("efficientnet_b0", tmp_path / "model.pth", options={"style": "tensorflow"})
    with pytest.raises(InputError, match="no style 'torch' of EfficientNet. Did you mean 'pytorch'"):
        functional(NetworkSpec("efficientnet_b0", {"style": "torch"}))


@pytest.fixture(scope="module")
def timms():
    return Timm(*B0, nn.Linear(1280, 5)).state_dict()


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
