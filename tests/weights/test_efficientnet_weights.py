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

from emokd.models.network import functional
from emokd.weights.efficientnet import foreign_module
from emokd.weights.importing import import_file

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


def test_a_plain_classifier_is_any_other_head():
    assert foreign_module("heads/objects") == "classifier"


@pytest.mark.parametrize("path", ["backbone/stages/1/0/pool/conv", "backbone/stem/bias", "neck/conv"])
def test_unknown_modules_are_key_errors(path):
    with pytest.raises(KeyError):
        foreign_module(path)


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
