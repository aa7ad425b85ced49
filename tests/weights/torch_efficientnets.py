"""EfficientNets in PyTorch with the names of three libraries, which tests compare with."""

from torch import nn


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
