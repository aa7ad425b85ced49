"""Where the modules of an EfficientNet-Lite0 `Network` are in state dicts that number all blocks in one row.

Files with the keys `_conv_stem`, `_blocks.0._depthwise_conv`, ...; for timm's keys see `efficientnet`.
"""

import itertools

from emokd.models.efficientnet import STAGES

STARTS = (0, *itertools.accumulate(repeats for _, _, repeats, _, _ in STAGES))
OUTER = {"stem/conv": "_conv_stem", "stem/norm": "_bn0", "last/conv": "_conv_head", "last/norm": "_bn1"}
INNER = {
    "expand/conv": "_expand_conv",
    "expand/norm": "_bn0",
    "depthwise/conv": "_depthwise_conv",
    "depthwise/norm": "_bn1",
    "project/conv": "_project_conv",
    "project/norm": "_bn2",
}


def foreign_module(path: str) -> str:
    """The module of such a file that is ours at `path`.

    Args:
      path: such as "backbone/stages/3/0/depthwise/conv" or "heads/objects"; any head is `_fc`.

    Raises:
      KeyError: the file has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "_fc"
        case ["backbone", "stages", stage, block, *rest]:
            return f"_blocks.{STARTS[int(stage)] + int(block)}.{INNER['/'.join(rest)]}"
        case ["backbone", *rest]:
            return OUTER["/".join(rest)]
    raise KeyError(path)
