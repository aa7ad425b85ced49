"""The networks of the picture benchmarks in plain PyTorch, written from their descriptions.

Their attributes have the names of ours, so `load` takes our parameters; it is strict, so the counts agree.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from emokd.models.layers import round_channels
from emokd.models.mobilenet_v2 import STAGES
from emokd.phase import Tree
from emokd.weights.mapping import flatten

NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def load(module: nn.Module, params: Tree, stats: Tree | None = None) -> nn.Module:
    """Gives a module our parameters and statistics.

    Raises:
      RuntimeError: a name or shape is missing on either side.
    """
    state = {}
    for path, leaf in {**flatten(params), **flatten(stats or {})}.items():
        place, _, name = path.rpartition("/")
        value = np.array(leaf)
        if name == "kernel":  # ours: spatial, in, out
            value = np.moveaxis(value, (-1, -2), (0, 1))
        state[f"{place}/{NAMES.get(name, name)}".lstrip("/").replace("/", ".")] = torch.tensor(value)
    counts = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict({**state, **counts})
    return module


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, and ReLU6 where asked."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self.expand = ConvNorm(inputs, hidden, 1)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, 1, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.expand(x) if hasattr(self, "expand") else x
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 (arXiv:1801.04381) without its classifier; features [B, 1280]."""

    feature_size = 1280

    def __init__(self, width: float = 1.0):
        super().__init__()
        channels = round_channels(32 * width)
        self.stem = ConvNorm(3, channels, 3, 2)
        blocks = []
        for expansion, base, repeats, stride in STAGES:
            for repeat in range(repeats):
                outputs = round_channels(base * width)
                blocks.append(InvertedResidual(channels, outputs, expansion, stride if repeat == 0 else 1))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = ConvNorm(channels, self.feature_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean((2, 3))


class Unit(nn.Module):
    """A convolution and its BatchNorm."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Two 3x3 units around which the input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.units = nn.ModuleList([Unit(inputs, outputs, 3, stride), Unit(outputs, outputs, 3)])
        if stride != 1 or inputs != outputs:
            self.shortcut = Unit(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.shortcut(x) if hasattr(self, "shortcut") else x
        return torch.relu(self.units[1](torch.relu(self.units[0](x))) + residual)


class ResNet18(nn.Module):
    """ResNet-18 (arXiv 1512.03385) without its classifier; features [B, 512]."""

    feature_size = 512

    def __init__(self):
        super().__init__()
        self.stem = Unit(3, 64, 7, 2)
        stages, size = [], 64
        for stage in range(4):
            outputs = 64 * 2**stage
            stages.append(nn.ModuleList([Block(size, outputs, 2 if stage else 1), Block(outputs, outputs, 1)]))
            size = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x.mean((2, 3))


class BasicCNN(nn.Module):
    """Five 3x3 convolutions with BatchNorm and ReLU, a 2x2 maximum between them; features [B, 8 width]."""

    def __init__(self, width: int = 32):
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairs])
        self.norms = nn.ModuleList([nn.BatchNorm2d(o) for _, o in pairs])
        self.feature_size = sizes[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if layer:
                x = nn.functional.max_pool2d(x, 2)
            x = torch.relu(norm(conv(x)))
        return x.mean((2, 3))


BACKBONES = {"mobilenet_v2": MobileNetV2, "resnet18": ResNet18, "basic_cnn": BasicCNN}


class Network(nn.Module):
    """A backbone with linear heads; gives features and each head's answer."""

    def __init__(self, backbone: str, heads: Mapping[str, int], **options):
        super().__init__()
        self.backbone = BACKBONES[backbone](**options)
        self.heads = nn.ModuleDict({name: nn.Linear(self.backbone.feature_size, size) for name, size in heads.items()})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = self.backbone(x)
        return features, {name: head(features) for name, head in self.heads.items()}
