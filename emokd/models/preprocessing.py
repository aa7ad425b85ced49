"""The input size and normalisation that a network expects of pictures.

It imports no JAX: arrays of JAX and of NumPy go through the same code, and exported models have only the latter.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as in Pillow, OpenCV and Keras."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Input size and normalisation of one network; each teacher has its own.

    Attributes:
      size: side of the square input, pixels.
      mean: per-channel mean subtracted from pixels in [0, 1].
      std: per-channel deviation that the pixels are then divided by.
      channels: 3 for RGB, 1 for grey (weighted by `LUMA`).
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3

    def __call__(self, pixels: Float[Any, "B H W 3"]) -> Float[Any, "B H W C"]:
        """Normalises RGB pixels in [0, 1], of JAX or of NumPy; it does not resize them to `size`."""
        if self.channels == 1:
            luma = np.asarray(LUMA, pixels.dtype)
            pixels = (pixels * luma[None, None, None]).sum(-1, keepdims=True)
        mean = np.asarray(self.mean, pixels.dtype)[None, None, None]
        std = np.asarray(self.std, pixels.dtype)[None, None, None]
        return (pixels - mean) / std
