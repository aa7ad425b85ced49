"""MobileNetV2 in PyTorch with torchvision's names, which tests compare with."""

from torch import nn

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
