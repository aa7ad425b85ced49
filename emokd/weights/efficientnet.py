"""Where the modules of an EfficientNet `Network` are in state dicts of timm, torchvision and efficientnet_pytorch.

The emotion models of HSEmotion (Savchenko 2021) are timm's `tf_efficientnet_b0_ns` and `_b2_ns`, whose classifier
became a Sequential of one layer: the head `expression` is looked for there first.

The three differ in more than names: see `style` of `models.efficientnet`. torchvision's are of style "pytorch", those
of efficientnet_pytorch "tensorflow", and timm has both under the same names.
"""

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from emokd.models.efficientnet import DEPTHS, STAGES
from emokd.weights.mapping import Names

TIMM_OUTER = {"stem/conv": "conv_stem", "stem/norm": "bn1", "last/conv": "conv_head", "last/norm": "bn2"}
TIMM_INNER = {
    "expand/conv": "conv_pw",
    "expand/norm": "bn1",
    "depthwise/conv": "conv_dw",
    "depthwise/norm": "bn2",
    "squeeze_excite/reduce": "se.conv_reduce",
    "squeeze_excite/expand": "se.conv_expand",
    "project/conv": "conv_pwl",
    "project/norm": "bn3",
}
# Blocks of the first stage have no expansion: timm counts their layers from the depthwise one.
TIMM_FIRST_STAGE = {
    **TIMM_INNER,
    "depthwise/norm": "bn1",
    "project/conv": "conv_pw",
    "project/norm": "bn2",
}
NUMBERED_OUTER = {"stem/conv": "_conv_stem", "stem/norm": "_bn0", "last/conv": "_conv_head", "last/norm": "_bn1"}
NUMBERED_INNER = {
    "expand/conv": "_expand_conv",
    "expand/norm": "_bn0",
    "depthwise/conv": "_depthwise_conv",
    "depthwise/norm": "_bn1",
    "squeeze_excite/reduce": "_se_reduce",
    "squeeze_excite/expand": "_se_expand",
    "project/conv": "_project_conv",
    "project/norm": "_bn2",
}
UNITS = {"conv": "0", "norm": "1"}
GATE = {"reduce": "fc1", "expand": "fc2"}


def timm(path: str) -> str:
    """The module of timm's EfficientNet that is ours at `path`.

    Args:
      path: such as "backbone/stages/3/0/depthwise/conv" or "heads/objects".

    Raises:
      KeyError: timm has no such module.
    """
    match path.split("/"):
        case ["heads", "expression"]:
            return "classifier.0"
        case ["heads", _]:
            return "classifier"
        case ["backbone", "stages", stage, block, *rest]:
            names = TIMM_FIRST_STAGE if stage == "0" else TIMM_INNER
            return f"blocks.{stage}.{block}.{names['/'.join(rest)]}"
        case ["backbone", *rest]:
            return TIMM_OUTER["/".join(rest)]
    raise KeyError(path)


def torchvision(path: str) -> str:
    """The module of torchvision's EfficientNet that is ours at `path`; KeyError where it has none.

    Stem, stages and last layer are numbered in one row, and so are the layers inside a block: expansion, depthwise,
    squeeze-excite, projection, of which the first stage lacks the expansion.
    """
    match path.split("/"):
        case ["heads", _]:
            return "classifier.1"
        case ["backbone", "stem", unit]:
            return f"features.0.{UNITS[unit]}"
        case ["backbone", "last", unit]:
            return f"features.{len(STAGES) + 1}.{UNITS[unit]}"
        case ["backbone", "stages", stage, block, part, unit]:
            layers = ("expand", "depthwise", "squeeze_excite", "project")[int(stage == "0") :]
            if part not in layers:
                raise KeyError(path)
            inner = (GATE if part == "squeeze_excite" else UNITS)[unit]
            return f"features.{int(stage) + 1}.{block}.block.{layers.index(part)}.{inner}"
    raise KeyError(path)


def numbered(path: str, depth: float) -> str:
    """The module of efficientnet_pytorch's networks that is ours at `path`; KeyError where they have none.

    Args:
      path: as for `timm`; any head is `_fc`.
      depth: multiplier of the repeats, because all blocks are numbered in one row.
    """
    match path.split("/"):
        case ["heads", _]:
            return "_fc"
        case ["backbone", "stages", stage, block, *rest]:
            return f"_blocks.{_starts(depth)[int(stage)] + int(block)}.{NUMBERED_INNER['/'.join(rest)]}"
        case ["backbone", *rest]:
            return NUMBERED_OUTER["/".join(rest)]
    raise KeyError(path)


def _starts(depth: float) -> list[int]:
    return [0, *itertools.accumulate(math.ceil(repeats * depth) for _, _, repeats, _, _ in STAGES)]


def layouts(backbone: str) -> Sequence[Names]:
    """The three namings of the backbone's modules in files."""
    depth = DEPTHS[backbone]
    return [
        Names("timm", timm),
        Names("torchvision", torchvision, {"style": "pytorch"}),
        Names("efficientnet_pytorch", lambda path: numbered(path, depth), {"style": "tensorflow"}),
    ]


def settle(names: Names, options: dict[str, Any], source: str) -> tuple[dict[str, Any], Sequence[str]]:
    """Chooses the style of a file with timm's names: by the options, else by the file's name, else TensorFlow's.

    Args:
      names: the naming that the file has.
      options: the backbone's options, as far as they are known.
      source: the file's name; timm's own begin with "efficientnet_" for style "pytorch", otherwise with "tf_".

    Returns:
      The options, and notes that say what was guessed.
    """
    if names.label != "timm" or "style" in options:
        return options, []
    style = "pytorch" if pathlib.Path(source).name.startswith("efficientnet_") else "tensorflow"
    other = {"pytorch": "tensorflow", "tensorflow": "pytorch"}[style]
    why = "by the file's name" if style == "pytorch" else "as timm's tf_... and HSEmotion's networks are"
    note = (
        f"timm's names do not say how the network pads; taken as style {style!r}, {why}. If its accuracy is low, try "
        f"the option style={other}"
    )
    return {**options, "style": style}, [note]
