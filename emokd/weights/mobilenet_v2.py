"""Where the modules of a MobileNetV2 `Network` are in torchvision's state dict."""

from emokd.models.mobilenet_v2 import STAGES

BLOCKS = sum(repeats for _, _, repeats, _ in STAGES)
UNITS = {"conv": "0", "norm": "1"}


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
            # The first block alone has no expansion, so all that follows is one place earlier.
            place = {"expand": 0, "depthwise": 1, "project": 2}[part] - (block == "0")
            # The projection has no activation: torchvision does not nest its two layers.
            inner = str(place + int(UNITS[unit])) if part == "project" else f"{place}.{UNITS[unit]}"
            return f"features.{int(block) + 1}.conv.{inner}"
    raise KeyError(path)
