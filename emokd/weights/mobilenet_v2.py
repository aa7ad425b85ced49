"""Where the modules of a MobileNetV2 `Network` are in the state dicts of torchvision and of timm."""

from collections.abc import Sequence

from emokd.models.mobilenet_v2 import STAGES
from emokd.weights.efficientnet import timm as timm_efficientnet
from emokd.weights.mapping import Names

BLOCKS = sum(repeats for _, _, repeats, _ in STAGES)
UNITS = {"conv": "0", "norm": "1"}
PLACES = [(stage, place) for stage, (_, _, repeats, _) in enumerate(STAGES) for place in range(repeats)]
"""Stage of each block, and its index within the stage."""


def foreign_module(path: str) -> str:
    """The module of torchvision's `mobilenet_v2` that is ours at `path`.

    Args:
      path: such as "backbone/blocks/3/depthwise/conv" or "heads/objects"; any head is the classifier.

    Raises:
      KeyError: torchvision has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "classifier.1"
        case ["backbone", "stem", unit]:
            return f"features.0.{UNITS[unit]}"
        case ["backbone", "last", unit]:
            return f"features.{BLOCKS + 1}.{UNITS[unit]}"
        case ["backbone", "blocks", block, part, unit]:
            # Only the first block has no expansion: the rest of it is one index lower.
            place = {"expand": 0, "depthwise": 1, "project": 2}[part] - (block == "0")
            # The projection has no activation: torchvision does not nest its two layers.
            inner = str(place + int(UNITS[unit])) if part == "project" else f"{place}.{UNITS[unit]}"
            return f"features.{int(block) + 1}.conv.{inner}"
    raise KeyError(path)


def timm(path: str) -> str:
    """The module of timm's `mobilenetv2_...` that is ours at `path`: those of its EfficientNets, block by stage.

    Raises:
      KeyError: timm has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "classifier"
        case ["backbone", "blocks", block, *rest]:
            stage, place = PLACES[int(block)]
            return timm_efficientnet("/".join(["backbone", "stages", str(stage), str(place), *rest]))
        case ["backbone", *_]:
            return timm_efficientnet(path)
    raise KeyError(path)


def layouts(backbone: str) -> Sequence[Names]:
    """torchvision's names and timm's; the networks are the same."""
    del backbone
    return [Names("torchvision", foreign_module), Names("timm", timm)]
