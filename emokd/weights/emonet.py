"""Where the modules of an EmoNet `Network` are in its authors' files (emonet_5.pth, emonet_8.pth).

The names follow the public convention for stacks of hourglasses in face alignment (conv1, m0.b1_4, top_m_0, l0, bl0,
al0, ...). They were put together from a description, without the file at hand: where it differs, the strict import
lists every difference. The files' last layer gives n expressions, then valence and arousal: two heads of ours.
"""

import re
from collections.abc import Mapping

import numpy as np

from emokd.models.emonet import DEPTH

LAST_LAYER = "emo_fc_2.3"
FIVE = ("neutral", "happy", "sad", "surprise", "anger")
EIGHT = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
HEADS: Mapping[str, Mapping[int, tuple[str, ...]]] = {"expression": {5: FIVE, 8: EIGHT}, "valence_arousal": {}}
"""The heads of a prepared file, and the class names of each by its number of outputs, where it has classes."""

STEM = {"conv": "conv1", "norm": "bn1"}
STEM_BLOCKS = {"0": "conv2", "1": "conv3", "2": "conv4"}
ALIGNER = {
    "top": "top_m_{}",
    "conv": "conv_last{}",
    "norm": "bn_end{}",
    "heatmaps": "l{}",
    "feed_features": "bl{}",
    "feed_heatmaps": "al{}",
}
LEVEL = {"skip": "b1", "before": "b2", "after": "b3"}
EMOTION = {"reduce": "conv1x1_input_emo_2", "linear": "emo_fc_2.0", "norm": "emo_fc_2.1"}
EMOTION_BLOCK = re.compile(r"(emo_\w+\.\d+)\.(?:bn|conv)\d\.")


def foreign_module(path: str) -> str:
    """The module of a prepared file that is ours at `path`.

    Args:
      path: such as "backbone/aligners/0/hourglass/levels/0/skip/convs/2" or "heads/expression".

    Raises:
      KeyError: the file has no such module.
    """
    match path.split("/"):
        case ["heads", name] if name in HEADS:
            return f"{LAST_LAYER}.{name}"
        case ["backbone", "stem", "blocks", index, *inner]:
            return STEM_BLOCKS[index] + _inside_block(inner)
        case ["backbone", "stem", part]:
            return STEM[part]
        case ["backbone", "aligners", index, "hourglass", "bottom", *inner]:
            return f"m{index}.b2_plus_1{_inside_block(inner)}"
        case ["backbone", "aligners", index, "hourglass", "levels", level, part, *inner]:
            return f"m{index}.{LEVEL[part]}_{DEPTH - int(level)}{_inside_block(inner)}"
        case ["backbone", "aligners", index, part, *inner]:
            return ALIGNER[part].format(index) + _inside_block(inner)
        case ["backbone", "emotion", "blocks", index, *inner]:
            return f"emo_convs.{index}{_inside_block(inner)}"
        case ["backbone", "emotion", part]:
            return EMOTION[part]
    raise KeyError(path)


def heads(backbone: str) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
    """`HEADS`, whatever the backbone."""
    del backbone
    return HEADS


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict whose last layer is split into heads, and whose emotion blocks are emo_convs.0 to emo_convs.3.

    The blocks are taken in the order of their numbers in the container, whatever its name after "emo_" and whether
    or not the pooling layers between the blocks are counted.
    """
    blocks = {match[1] for name in foreign if (match := EMOTION_BLOCK.match(name))}
    ordered = sorted(blocks, key=lambda block: (block.rpartition(".")[0], int(block.rpartition(".")[2])))
    renamed = {block: f"emo_convs.{number}" for number, block in enumerate(ordered)}
    prepared = {}
    for name, array in foreign.items():
        module, _, leaf = name.rpartition(".")
        if module == LAST_LAYER and array.ndim and len(array) > 2:
            prepared[f"{module}.expression.{leaf}"] = array[:-2]
            prepared[f"{module}.valence_arousal.{leaf}"] = array[-2:]
        elif match := EMOTION_BLOCK.match(name):
            prepared[renamed[match[1]] + name.removeprefix(match[1])] = array
        else:
            prepared[name] = array
    return prepared


def restore(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `prepare`: one last layer, of the expressions, then valence and arousal."""
    found = {name: array for name, array in foreign.items() if not name.startswith(f"{LAST_LAYER}.")}
    for leaf in ("weight", "bias"):
        parts = [foreign[name] for head in HEADS if (name := f"{LAST_LAYER}.{head}.{leaf}") in foreign]
        if parts:
            found[f"{LAST_LAYER}.{leaf}"] = np.concatenate(parts)
    return found


def _inside_block(inner: list[str]) -> str:
    """The end of a name inside a block: ["convs", "0"] -> ".conv1"; empty for a module that is no block."""
    match inner:
        case []:
            return ""
        case ["norms", index]:
            return f".bn{int(index) + 1}"
        case ["convs", index]:
            return f".conv{int(index) + 1}"
        case ["shortcut", "norm"]:
            return ".downsample.0"
        case ["shortcut", "conv"]:
            return ".downsample.2"
    raise KeyError("/".join(inner))
