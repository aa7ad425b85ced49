"""EfficientNet-Lite0 in PyTorch with the names of its published file, which tests compare with."""

from torch import nn

# expansion, outputs, repeats, stride, kernel
TABLE = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def padded(conv: nn.Conv2d, x):
    """TensorFlow's "SAME": as many outputs as inputs over stride, an odd zero goes behind."""
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads += [total // 2, total - total // 2]
    return conv(nn.functional.pad(x, pads))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride, kernel):
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._project_conv, self._bn2 = nn.Conv2d(hidden, outputs, 1, bias=False), norm(outputs)
        self.expands, self.skips = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, inputs):
        x = inputs
        if self.expands:
            x = nn.functional.relu6(self._bn0(self._expand_conv(x)))
        x = nn.functional.relu6(self._bn1(padded(self._depthwise_conv, x)))
        x = self._bn2(self._project_conv(x))
        return inputs + x if self.skips else x


class Lite0(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), norm(32)
        blocks, inputs = [], 32
        for expansion, outputs, repeats, stride, kernel in TABLE:
            for repeat in range(repeats):
                blocks.append(Block(inputs, outputs, expansion, stride if repeat == 0 else 1, kernel))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = nn.Conv2d(inputs, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x):
        x = nn.functional.relu6(self._bn0(padded(self._conv_stem, x)))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))
