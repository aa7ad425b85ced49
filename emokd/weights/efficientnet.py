"""Where the modules of an EfficientNet `Network` are in timm's state dicts.

The emotion models of HSEmotion (Savchenko 2021) are such files of `tf_efficientnet_b0_ns` and `_b2_ns` whose
classifier became a Sequential of one layer: the head `expression` is looked for there, any other is `classifier`.
"""

OUTER = {
    "stem/conv": "conv_stem",
    "stem/norm": "bn1",
    "last/conv": "conv_head",
    "last/norm": "bn2",
}
INNER = {
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
FIRST_STAGE = {
    **INNER,
    "depthwise/norm": "bn1",
    "project/conv": "conv_pw",
    "project/norm": "bn2",
}


def foreign_module(path: str) -> str:
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
            names = FIRST_STAGE if stage == "0" else INNER
            return f"blocks.{stage}.{block}.{names['/'.join(rest)]}"
        case ["backbone", *rest]:
            return OUTER["/".join(rest)]
    raise KeyError(path)
