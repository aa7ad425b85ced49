"""Keras layer names of the FER2013 mini-Xception, numbered in the order in which its authors built the layers.

In each block the shortcut's convolution and normalisation were built first. Keras numbers layers through a session and,
in later versions, begins without a number ("conv2d", "conv2d_1"): here layers are renumbered in their order, from 1.
"""

import re
from collections.abc import Mapping

import numpy as np

AUTOMATIC = re.compile(r"(conv2d|batch_normalization|separable_conv2d)(?:_(\d+))?$")

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The order of the published FER2013 file's outputs."""


def foreign_module(path: str) -> str:
    """The Keras layer of ours: "backbone/blocks/0/norms/1" -> "batch_normalization_5"; any head -> "conv2d_7"."""
    root, *rest = path.split("/")
    if root == "heads":
        return "conv2d_7"
    if rest[0] == "stem":
        kind, number = rest[1], int(rest[2]) + 1
        return f"conv2d_{number}" if kind == "convs" else f"batch_normalization_{number}"
    block, kind = int(rest[1]), rest[2]
    if kind == "separables":
        return f"separable_conv2d_{2 * block + int(rest[3]) + 1}/{rest[4]}"
    if kind == "norms":
        return f"batch_normalization_{3 * block + int(rest[3]) + 4}"
    return {"shortcut_conv": f"conv2d_{block + 3}", "shortcut_norm": f"batch_normalization_{3 * block + 3}"}[kind]


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renumbers layers with automatic names from 1, each kind by itself, in the order of their numbers."""
    numbers: dict[str, dict[str, int]] = {}
    for name in foreign:
        layer = name.split("/")[0]
        if match := AUTOMATIC.match(layer):
            numbers.setdefault(match[1], {})[layer] = int(match[2] or 0)
    renamed = {
        layer: f"{kind}_{place}"
        for kind, layers in numbers.items()
        for place, layer in enumerate(sorted(layers, key=layers.__getitem__), 1)
    }
    return {
        "/".join([renamed.get(name.split("/")[0], name.split("/")[0]), *name.split("/")[1:]]): array
        for name, array in foreign.items()
    }
