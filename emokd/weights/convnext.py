"""Where the modules of a ConvNeXt `Network` are in state dicts of torchvision, timm and its authors.

All three hold the same network. Only the name and shape of LayerScale need more than a map of modules: torchvision
calls it `layer_scale`, of shape [C, 1, 1].
"""

from collections.abc import Mapping, Sequence

import numpy as np

from emokd.weights.mapping import Names

SCALE, OURS = ".layer_scale", ".gamma"
TORCHVISION = {"depthwise": "block.0", "norm": "block.2", "expand": "block.3", "project": "block.5"}
TIMM = {"depthwise": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "project": "mlp.fc2"}
AUTHORS = {"depthwise": "dwconv", "norm": "norm", "expand": "pwconv1", "project": "pwconv2"}
STEM = {"conv": "0", "norm": "1"}
DOWNSAMPLE = {"norm": "0", "conv": "1"}


def torchvision(path: str) -> str:
    """The module of torchvision's ConvNeXt that is ours at `path`.

    Stem, stages and the layers between them are numbered in one row.

    Args:
      path: such as "backbone/stages/3/0/depthwise" or "heads/objects"; any head is the classifier's last layer.

    Raises:
      KeyError: torchvision has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "classifier.2"
        case ["backbone", "norm"]:
            return "classifier.0"
        case ["backbone", "stem", part]:
            return f"features.0.{STEM[part]}"
        case ["backbone", "downsamples", index, part]:
            return f"features.{2 * int(index) + 2}.{DOWNSAMPLE[part]}"
        case ["backbone", "stages", stage, block, *rest]:
            inner = [TORCHVISION["/".join(rest)]] if rest else []
            return ".".join([f"features.{2 * int(stage) + 1}.{block}", *inner])
    raise KeyError(path)


def timm(path: str) -> str:
    """The module of timm's ConvNeXt that is ours at `path`; KeyError where it has none."""
    match path.split("/"):
        case ["heads", _]:
            return "head.fc"
        case ["backbone", "norm"]:
            return "head.norm"
        case ["backbone", "stem", part]:
            return f"stem.{STEM[part]}"
        case ["backbone", "downsamples", index, part]:
            return f"stages.{int(index) + 1}.downsample.{DOWNSAMPLE[part]}"
        case ["backbone", "stages", stage, block, *rest]:
            inner = [TIMM["/".join(rest)]] if rest else []
            return ".".join([f"stages.{stage}.blocks.{block}", *inner])
    raise KeyError(path)


def authors(path: str) -> str:
    """The module of the authors' ConvNeXt that is ours at `path`; KeyError where it has none."""
    match path.split("/"):
        case ["heads", _]:
            return "head"
        case ["backbone", "norm"]:
            return "norm"
        case ["backbone", "stem", part]:
            return f"downsample_layers.0.{STEM[part]}"
        case ["backbone", "downsamples", index, part]:
            return f"downsample_layers.{int(index) + 1}.{DOWNSAMPLE[part]}"
        case ["backbone", "stages", stage, block, *rest]:
            inner = [AUTHORS["/".join(rest)]] if rest else []
            return ".".join([f"stages.{stage}.{block}", *inner])
    raise KeyError(path)


def layouts(backbone: str) -> Sequence[Names]:
    """The three namings of the modules in files."""
    del backbone
    return [Names("torchvision", torchvision), Names("timm", timm), Names("its authors", authors)]


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in which torchvision's LayerScale has the name and shape of the others': `gamma`, [C]."""
    return {
        (name.removesuffix(SCALE) + OURS if name.endswith(SCALE) else name): (
            array.reshape(-1) if name.endswith(SCALE) and array.shape[1:] == (1, 1) else array
        )
        for name, array in foreign.items()
    }


def restore(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `prepare`, which changes torchvision's names only."""
    return {
        (name.removesuffix(OURS) + SCALE if _torchvisions(name) else name): (
            array.reshape(-1, 1, 1) if _torchvisions(name) else array
        )
        for name, array in foreign.items()
    }


def _torchvisions(name: str) -> bool:
    return name.startswith("features.") and name.endswith(OURS)
