"""Where the modules of a DINOv2 `Network` are in files of transformers, such as `facebook/dinov2-small`."""

from collections.abc import Mapping

import numpy as np
from absl import logging

MASK = "embeddings.mask_token"
"""The token in place of hidden patches in pretraining; no picture has hidden ones afterwards."""

INNER = {
    "norm_1": "norm1",
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/out": "attention.output.dense",
    "scale_1": "layer_scale1",
    "norm_2": "norm2",
    "mlp/expand": "mlp.fc1",
    "mlp/project": "mlp.fc2",
    "scale_2": "layer_scale2",
}


def foreign_module(path: str) -> str:
    """The module in transformers that is ours at `path`; any head is "classifier".

    Args:
      path: such as "backbone/blocks/3/attention/query" or "heads/objects".

    Raises:
      KeyError: transformers has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "classifier"
        case ["backbone"]:
            return "embeddings"
        case ["backbone", "patches", "project"]:
            return "embeddings.patch_embeddings.projection"
        case ["backbone", "blocks", index, *inner]:
            return f"encoder.layer.{index}.{INNER['/'.join(inner)]}"
        case ["backbone", "norm"]:
            return "layernorm"
    raise KeyError(path)


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict without the mask token, of which the log says that it was left out."""
    kept = dict(foreign)
    if kept.pop(MASK, None) is not None:
        logging.warning("Left out %s, which stands for hidden patches in pretraining alone.", MASK)
    return kept
