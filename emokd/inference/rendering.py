"""The evaluation view of pictures as a network's input, in NumPy, as `data.augment.render` computes it in JAX."""

import functools

import numpy as np
from jaxtyping import Float, UInt8


def render_whole(pictures: UInt8[np.ndarray, "B S S 3"], size: int) -> Float[np.ndarray, "B size size 3"]:
    """Resizes square pictures by an antialiased triangle filter, as two products with one matrix.

    Args:
      pictures: RGB canvases.
      size: side of the result, pixels.

    Returns:
      RGB in [0, 1], float32.
    """
    side = pictures.shape[1]
    pixels = pictures.astype(np.float32) / 255
    if side == size:
        return pixels
    weights = _resize_matrix(side, size)
    rows = np.tensordot(weights, pixels, axes=(1, 1)).transpose(1, 0, 2, 3)
    return np.clip(np.tensordot(rows, weights, axes=(2, 1)).transpose(0, 1, 3, 2), 0, 1)


@functools.lru_cache(maxsize=16)
def _resize_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Triangle-filter weights, as wide as the step between the target's pixels, and at least one pixel wide."""
    step = source / target
    centres = (np.arange(target) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(source))
    weights = np.maximum(0, 1 - distance / max(step, 1))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
