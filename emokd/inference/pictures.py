"""Turns pictures, as users pass them, into upright RGB pixels."""

import os
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from emokd.data.decode import read_file, to_rgb
from emokd.errors import InputError

Picture = str | os.PathLike | np.ndarray | Image.Image
"""A file, a uint8 array [H, W, 3] in the order red, green, blue, or a PIL image."""


def is_several(pictures: Any) -> bool:
    """Whether this is a batch of pictures: a list, a tuple, or an array of four axes."""
    return isinstance(pictures, list | tuple) or getattr(pictures, "ndim", 0) == 4


def as_pixels(picture: Picture, min_side: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """Upright RGB pixels of a picture.

    Args:
      picture: see `Picture`; other libraries' arrays work where NumPy can read them.
      min_side: when positive, a JPEG file may be decoded at a reduced size whose sides are both at least this.

    Raises:
      InputError: it is not a Picture, the file cannot be read, or the array has another shape or type.
    """
    if isinstance(picture, str | os.PathLike):
        return read_file(picture, min_side)
    if isinstance(picture, Image.Image):
        return _of_pil(picture)
    if not hasattr(picture, "__array__"):
        raise InputError(
            f"A {type(picture).__name__} is no picture. Give a file's name, an array uint8 [H, W, 3] or a PIL image."
        )
    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            f"An array of the shape {list(pixels.shape)} is no picture. Give [height, width, 3], or [pictures, height, "
            "width, 3] for several; grey is repeated three times."
        )
    if pixels.dtype != np.uint8:
        raise InputError(
            f"An array of {pixels.dtype} is no picture, as its range is not known. Give uint8 from 0 to 255; of "
            "numbers from 0 to 1 that is (255 * x).round().astype('uint8')."
        )
    return pixels


def _of_pil(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if 0 in image.size:
        raise InputError(f"A PIL image of {image.width} x {image.height} pixels is no picture.")
    try:
        return to_rgb(image, "the PIL image")
    except InputError:
        raise
    except Exception as error:  # Pillow reads the file of an opened image only now
        raise InputError(
            f"The PIL image (mode {image.mode}) cannot be read: {error}. Load it again, or convert it to RGB."
        ) from error
