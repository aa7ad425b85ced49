"""A (2+1)D ResNet-18 in PyTorch with torchvision's names, which tests compare with."""

import torch
from torch import nn


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
