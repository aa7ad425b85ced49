"""EmoNet in plain PyTorch, written from its description; its state dict has the names of the authors' files."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Three pre-activated 3x3 convolutions whose results are concatenated, and the input added."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        half, quarter = c_out // 2, c_out // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, half, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(quarter), nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        if c_in != c_out:
            self.downsample = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: torch.Tensor):
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        residual = self.downsample(x) if hasattr(self, "downsample") else x
        return torch.cat([first, second, third], 1) + residual


class Hourglass(nn.Module):
    """Down to a sixteenth and up again, with a block beside every level."""

    def __init__(self):
        super().__init__()
        for level in (4, 3, 2, 1):
            for part in ("b1", "b2", "b3"):
                self.add_module(f"{part}_{level}", Block(256, 256))
        self.b2_plus_1 = Block(256, 256)

    def forward(self, x: torch.Tensor, level: int = 4) -> torch.Tensor:
        beside = getattr(self, f"b1_{level}")(x)
        low = getattr(self, f"b2_{level}")(F.max_pool2d(x, 2))
        low = self.forward(low, level - 1) if level > 1 else self.b2_plus_1(low)
        low = getattr(self, f"b3_{level}")(low)
        return beside + F.interpolate(low, scale_factor=2, mode="nearest")


class EmoNet(nn.Module):
    """EmoNet (Toisoul et al. 2021): two hourglasses find 68 landmarks, whose attention guides the emotion branch."""

    def __init__(self, expressions: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, 256)
        for i in range(2):
            self.add_module(f"m{i}", Hourglass())
            self.add_module(f"top_m_{i}", Block(256, 256))
            self.add_module(f"conv_last{i}", nn.Conv2d(256, 256, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(256))
            self.add_module(f"l{i}", nn.Conv2d(256, 68, 1))
        self.bl0, self.al0 = nn.Conv2d(256, 256, 1), nn.Conv2d(68, 256, 1)
        self.conv1x1_input_emo_2 = nn.Conv2d(768, 256, 1)
        self.emo_convs = nn.Sequential(*[layer for _ in range(4) for layer in (Block(256, 256), nn.MaxPool2d(2))])
        self.emo_fc_2 = nn.Sequential(
            nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, expressions + 2)
        )

    def forward(self, x: torch.Tensor):
        x = F.relu(self.bn1(self.conv1(x)))
        low_level = self.conv4(self.conv3(F.max_pool2d(self.conv2(x), 2)))
        first = F.relu(self.bn_end0(self.conv_last0(self.top_m_0(self.m0(low_level)))))
        heatmaps = self.l0(first)
        first = self.bl0(first)
        x = low_level + first + self.al0(heatmaps)
        second = F.relu(self.bn_end1(self.conv_last1(self.top_m_1(self.m1(x)))))
        heatmaps = self.l1(second)
        mask = heatmaps.sum(1, keepdim=True)
        x = self.conv1x1_input_emo_2(torch.cat([low_level, first * mask, second * mask], 1))
        x = self.emo_convs(x)
        x = (F.avg_pool2d(x, 4) if x.shape[2:] == (4, 4) else x.mean((2, 3))).flatten(1)
        answer = self.emo_fc_2(x)
        return {
            "features": self.emo_fc_2[:3](x),
            "heatmaps": heatmaps,
            "expression": answer[:, :-2],
            "valence": answer[:, -2],
            "arousal": answer[:, -1],
        }
