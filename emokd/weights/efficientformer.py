"""Where the modules of an EfficientFormer `Network` are in its authors' checkpoints, whose two heads are merged.

The published networks were distilled: one head was trained on labels, the other on a teacher, and the output is the
mean of both. The mean of two linear maps is a linear map, so they are imported as one head. Leaving "dist_head" out
keeps the head that was trained on labels alone.
"""

from collections.abc import Mapping

import numpy as np

from emokd.models.efficientformer import OFFSETS

CONSTANTS = ("attention_bias_idxs", "ab")
"""Arrays that hold no weights: the index of each pair of tokens into the biases, and the biases gathered by it."""

DISTILLED = "dist_head."
INNER = {
    "mixer/norm": "norm1",
    "mixer/qkv": "token_mixer.qkv",
    "mixer/project": "token_mixer.proj",
    "mixer": "token_mixer",
    "mlp/norm": "norm2",
    "mlp/expand": "mlp.fc1",
    "mlp/project": "mlp.fc2",
    "mlp/expand/conv": "mlp.fc1",
    "mlp/expand/norm": "mlp.norm1",
    "mlp/project/conv": "mlp.fc2",
    "mlp/project/norm": "mlp.norm2",
}


def foreign_module(path: str) -> str:
    """The authors' module that is ours at `path`; any head is "head".

    Args:
      path: such as "backbone/stages/3/4/mixer/qkv" or "heads/objects".

    Raises:
      KeyError: the authors have no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "head"
        case ["backbone", "stem", unit, part]:
            return f"patch_embed.{3 * int(unit) + {'conv': 0, 'norm': 1}[part]}"
        case ["backbone", "downsamples", index, part]:
            return f"network.{2 * int(index) + 1}.{ {'conv': 'proj', 'norm': 'norm'}[part] }"
        case ["backbone", "stages", stage, block]:
            return f"network.{2 * int(stage)}.{block}"
        case ["backbone", "stages", stage, block, *inner]:
            return f"network.{2 * int(stage)}.{block}.{INNER['/'.join(inner)]}"
        case ["backbone", "norm"]:
            return "norm"
    raise KeyError(path)


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict without constants, in which "head" is the mean of "head" and "dist_head" where both are there.

    A "dist_head" without a "head" of the same shape stays where it is, for the mapping to refuse.
    """
    kept = {name: array for name, array in foreign.items() if name.rpartition(".")[2] not in CONSTANTS}
    for name in [name for name in kept if name.startswith(DISTILLED)]:
        head = "head." + name.removeprefix(DISTILLED)
        if head in kept and kept[head].shape == kept[name].shape:
            kept[head] = (kept[head] + kept.pop(name)) / 2
    return kept


def restore(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `prepare`: both heads are the one of ours, so that their mean is; constants are computed again."""
    found = dict(foreign)
    for name in [name for name in found if name.startswith("head.")]:
        found[DISTILLED + name.removeprefix("head.")] = found[name].copy()
    for name in [name for name in found if name.endswith(".attention_biases")]:
        found[name.removesuffix("attention_biases") + CONSTANTS[0]] = OFFSETS.astype(np.int64)
    return found
