"""Where the modules of CLIP's image tower are in files of transformers, such as `openai/clip-vit-base-patch32`.

These files hold the text tower too, which is left out.
"""

from collections.abc import Mapping

import numpy as np
from absl import logging

TEXT = ("text_model.", "text_projection.", "logit_scale")
CONSTANTS = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
"""Arrays that hold no weights: the numbers of the positions, which older versions of transformers stored."""

OUTER = {
    "": "embeddings",
    "patches/project": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding",
    "norm_before": "pre_layrnorm",
    "norm_after": "post_layernorm",
}
INNER = {
    "norm_1": "layer_norm1",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.out_proj",
    "norm_2": "layer_norm2",
    "mlp/expand": "mlp.fc1",
    "mlp/project": "mlp.fc2",
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
        case ["backbone", "project"]:
            return "visual_projection"
        case ["backbone", "blocks", index, *inner]:
            return f"vision_model.encoder.layers.{index}.{INNER['/'.join(inner)]}"
        case ["backbone", *outer]:
            return f"vision_model.{OUTER['/'.join(outer)]}"
    raise KeyError(path)


def prepare(foreign: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict of the image tower alone; the log says how much of the text tower was left out."""
    weights = {name: array for name, array in foreign.items() if name not in CONSTANTS}
    text = {name: array for name, array in weights.items() if name.startswith(TEXT)}
    if text:
        logging.warning(
            "Left out CLIP's text tower: %d arrays with %s numbers, of %d arrays in the file.",
            *(len(text), f"{sum(array.size for array in text.values()):,}", len(weights)),
        )
    return {name: array for name, array in weights.items() if name not in text}
