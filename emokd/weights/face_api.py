"""Where the modules of face-api's three networks are in its TensorFlow.js manifests.

The networks for expression, for age and gender and for identity use different names: a file of one fits no other.
"""

from collections.abc import Mapping

import numpy as np

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
GENDERS = ("male", "female")
HEADS: Mapping[str, Mapping[str, Mapping[int, tuple[str, ...]]]] = {
    "face_api_expression": {"expression": {7: EXPRESSIONS}},
    "face_api_age_gender": {"age": {}, "gender": {2: GENDERS}},
    "face_api_identity": {},
}
"""By architecture: the heads of its file, and the class names of each by its number of outputs. Age is in years."""

IDENTITY_BLOCKS = (
    *(f"conv32_{i}" for i in (1, 2, 3)),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2"),
    "conv256_down_out",
)


def foreign_module(path: str) -> str:
    """The module of a prepared manifest that is ours at `path`.

    Args:
      path: such as "backbone/blocks/0/convs/1/depthwise" ("dense0/conv1/depthwise") or "heads/age" ("fc/age").

    Raises:
      KeyError: no manifest has such a module.
    """
    match path.split("/"):
        case ["heads", "expression"]:
            return "fc"
        case ["heads", name]:
            return f"fc/{name}"
        case ["backbone", "blocks", block, "convs", *rest]:
            return "/".join([f"dense{block}", f"conv{rest[0]}", *rest[1:]])
        case ["backbone", "blocks", block, "units", unit, part]:
            return f"{IDENTITY_BLOCKS[int(block)]}/conv{int(unit) + 1}/{part}"
        case ["backbone", "stem"]:
            return "entry_flow/conv_in"
        case ["backbone", "stem", part]:
            return f"conv32_down/{part}"
        case ["backbone", "embedding"]:
            return "fc"
        case ["backbone", "entry", block, *rest]:
            return "/".join([f"entry_flow/reduction_block_{block}", *_inside_reduction(rest)])
        case ["backbone", "middle", block, "separables", index, *rest]:
            return "/".join([f"middle_flow/main_block_{block}/separable_conv{index}", *rest])
        case ["backbone", "exit", *rest]:
            return "/".join(["exit_flow/reduction_block", *_inside_reduction(rest)])
        case ["backbone", "last", part]:
            return f"exit_flow/separable_conv/{part}"
    raise KeyError(path)


def heads(backbone: str) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
    """The heads of that network's file."""
    return HEADS[backbone]


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames arrays to "module/array", as the mapping expects them.

    A separable convolution becomes the modules "depthwise", with the kernel [h, w, 1, C * M], and "pointwise", which
    has the bias.
    """
    prepared = {}
    for name, array in foreign.items():
        module, _, leaf = name.rpartition("/")
        if leaf == "depthwise_filter" and array.ndim == 4:
            height, width, channels, multiplier = array.shape
            module, leaf = f"{module}/depthwise", "kernel"
            array = array.reshape(height, width, 1, channels * multiplier)
        elif leaf == "pointwise_filter":
            module, leaf = f"{module}/pointwise", "kernel"
        elif leaf == "bias" and f"{module}/pointwise_filter" in foreign:
            module = f"{module}/pointwise"
        elif leaf == "filters":
            leaf = "kernel"
        elif leaf == "weights":
            leaf = "scale" if array.ndim == 1 else "kernel"
        elif leaf == "biases":
            leaf = "bias"
        elif not module and array.ndim == 2:  # the embedding: a matrix with a name of one part
            module, leaf = leaf, "kernel"
        prepared[f"{module}/{leaf}"] = array
    return prepared


def _inside_reduction(inner: list[str]) -> list[str]:
    match inner:
        case ["separables", index, part]:
            return [f"separable_conv{index}", part]
        case ["shortcut"]:
            return ["expansion_conv"]
    raise KeyError("/".join(inner))
