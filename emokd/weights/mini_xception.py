"""Keras layer names of the FER2013 mini-Xception, numbered in the order in which its authors built the layers.

In each block the shortcut's convolution and normalisation were built first.
"""

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
