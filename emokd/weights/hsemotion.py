"""Where the modules of HSEmotion's EfficientNets are in their state dicts: timm's names, and a classifier of theirs.

HSEmotion (Savchenko 2021, arXiv:2103.17107; Apache-2.0) publishes `enet_b0_8_best_afew`, `enet_b0_8_best_vgaf`,
`enet_b0_8_va_mtl`, `enet_b2_8` and `enet_b2_7` as whole pickled modules, which are never opened here. They are timm's
`tf_efficientnet_b0_ns` and `_b2_ns`. The order of the classes, the side of the pictures (224 for B0, 260 for B2) and
ImageNet's mean and deviation are those of the package `hsemotion`. Of ten outputs the last two are valence and arousal,
trained by concordance as the linear layer makes them: there is no tanh, and they may leave [-1, 1].
"""

from collections.abc import Mapping, Sequence

import numpy as np

from emokd.errors import InputError
from emokd.weights.efficientnet import timm
from emokd.weights.mapping import Names

CLASSIFIER = "classifier"
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EIGHT = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
HEADS: Mapping[str, Mapping[int, tuple[str, ...]]] = {"expression": {7: SEVEN, 8: EIGHT}, "valence_arousal": {}}
"""The heads of a prepared file, and the class names of each by its number of outputs, where it has classes."""


def foreign_module(path: str) -> str:
    """The module of a prepared file that is ours at `path`.

    Args:
      path: such as "backbone/stages/3/0/depthwise/conv" or "heads/expression".

    Raises:
      KeyError: the file has no such module.
    """
    match path.split("/"):
        case ["heads", name] if name in HEADS:
            return f"{CLASSIFIER}.{name}"
        case ["heads", _]:
            raise KeyError(path)
    return timm(path)


def layouts(backbone: str) -> Sequence[Names]:
    """Their naming; the networks pad as TensorFlow does."""
    del backbone
    return [Names("HSEmotion", foreign_module, {"style": "tensorflow"})]


def heads(backbone: str) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
    """`HEADS`, whatever the backbone."""
    del backbone
    return HEADS


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict whose classifier is split into heads; it may be a linear layer, or a Sequential of one.

    Raises:
      InputError: the classifier has neither 7, 8 nor 10 outputs.
    """
    prepared = {}
    for name, array in foreign.items():
        module, _, leaf = name.rpartition(".")
        if module not in (CLASSIFIER, f"{CLASSIFIER}.0") or not array.ndim:
            prepared[name] = array
            continue
        classes = {7: 7, 8: 8, 10: 8}.get(len(array))
        if classes is None:
            raise InputError(
                f"{name!r} has {len(array)} outputs; HSEmotion's have 7 or 8 (expressions) or 10 (8 expressions, "
                f"valence, arousal). Import a network with another classifier as efficientnet_b0 or efficientnet_b2, "
                f"with --head and --classes, or leave the classifier out: --leave_out={module}."
            )
        prepared[f"{CLASSIFIER}.expression.{leaf}"] = array[:classes]
        if len(array) > classes:
            prepared[f"{CLASSIFIER}.valence_arousal.{leaf}"] = array[classes:]
    return prepared
