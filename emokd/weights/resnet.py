"""torchvision's names of ResNet modules."""

NAMES = {"stem/conv": "conv1", "stem/norm": "bn1"}
PARTS = {"shortcut/conv": "downsample.0", "shortcut/norm": "downsample.1"}


def foreign_module(path: str) -> str:
    """The torchvision module of ours: "backbone/stages/0/1/units/2/conv" -> "layer1.1.conv3"; any head -> "fc"."""
    root, _, rest = path.partition("/")
    if root == "heads":
        return "fc"
    if rest in NAMES:
        return NAMES[rest]
    _, stage, block, *part = rest.split("/")
    if part[0] == "units":
        return f"layer{int(stage) + 1}.{block}.{ {'conv': 'conv', 'norm': 'bn'}[part[2]] }{int(part[1]) + 1}"
    return f"layer{int(stage) + 1}.{block}.{PARTS['/'.join(part)]}"
