"""Cuts out square pictures of faces, by landmarks or by a box."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from emokd.data.decode import MAX_PIXELS, DecodeError
from emokd.data.examples import Examples
from emokd.errors import InputError

_FEWEST = 4
"""The least side of a square in pixels: what is smaller is no face, but a box in fractions of the picture's sides."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture; a box may reach beyond the picture."""

CROPS = ("landmarks", "box")
"""How pictures of faces were cut out: with a margin around their landmarks, or as a square that just holds the face."""

LANDMARK_SCALE = 0.909
"""Side of EmoNet's crop, divided by width plus height of the landmarks' box."""


def landmark_box(landmarks: Float[np.ndarray, "N 2"]) -> Box:
    """The smallest box around landmarks, which are rows of x and y in pixels."""
    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def square_around(box: Box, scale: float = LANDMARK_SCALE) -> tuple[int, int, int]:
    """The square around the centre of a box, in whole pixels.

    Args:
      box: left, top, right, bottom in pixels.
      scale: side of the square, divided by width plus height of the box. The default is EmoNet's for the box of
        the landmarks; 0.5 gives the box's mean side.

    Returns:
      Left, top and side. Halves are rounded up.

    Raises:
      InputError: the box has no area, is not finite, or its square would have a side below 4 pixels or be above
        `decode.MAX_PIXELS`.
    """
    left, top, right, bottom = box
    if not (math.isfinite(sum(box)) and left < right and top < bottom):
        raise InputError(
            f"The box {_text(box)} (left, top, right, bottom) has no area. Correct its landmarks or sides."
        )
    length = scale * (right - left + bottom - top)
    if length > math.sqrt(MAX_PIXELS):
        raise InputError(
            f"The box {_text(box)} is too large: no face has so many pixels. Correct its landmarks or sides."
        )
    if length < _FEWEST:
        raise InputError(
            f"The box {_text(box)} (left, top, right, bottom) is too small: no face has so few pixels. Are these "
            "fractions of the picture's sides? Give its landmarks or sides in pixels."
        )
    side = _round(length)
    return _round((left + right - side) / 2), _round((top + bottom - side) / 2), side


def crop_square(picture: UInt8[np.ndarray, "H W 3"], x0: int, y0: int, side: int) -> UInt8[np.ndarray, "S S 3"]:
    """Cuts a square out of a picture; black where it reaches beyond the picture.

    Args:
      picture: RGB.
      x0: left edge, pixels; may be negative.
      y0: top edge.
      side: side, at least 1.

    Raises:
      InputError: nothing of the picture is in the square.
    """
    height, width = picture.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    if left >= right or top >= bottom:
        raise InputError(
            f"The square of side {side} at ({x0}, {y0}) is outside the picture, which is {width} x {height} pixels. "
            "Correct its landmarks or box."
        )
    square = np.zeros((side, side, 3), np.uint8)
    square[top - y0 : bottom - y0, left - x0 : right - x0] = picture[top:bottom, left:right]
    return square


def crop_box(
    picture: UInt8[np.ndarray, "H W 3"], box: Box, scale: float = LANDMARK_SCALE
) -> UInt8[np.ndarray, "S S 3"]:
    """Cuts out the square around a box, see `square_around` and `crop_square`.

    A box that is partly outside the picture gives a crop that is partly black. [ours]

    Raises:
      InputError: the box is wrong, or nothing of it is inside the picture.
    """
    square = square_around(box, scale)
    height, width = picture.shape[:2]
    left, top, right, bottom = box
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise InputError(
            f"The box {_text(box)} (left, top, right, bottom) is outside the picture, which is {width} x {height} "
            "pixels. Correct its landmarks or sides."
        )
    return crop_square(picture, *square)


def with_crops(examples: Examples, box: Callable[[int], Box], scale: float = LANDMARK_SCALE) -> Examples:
    """The same examples with their pictures cut out around a box when they are read.

    Args:
      examples: examples with pictures, decoded at full size (`min_side` 0), to whose pixels the boxes refer.
      box: gives the box of example i.
      scale: see `square_around`.

    Returns:
      Examples whose reader raises a DecodeError, naming the picture, where `crop_box` refuses its box. The pipeline
      then leaves the picture out and counts it like one that cannot be decoded.
    """
    read = examples.inputs["image"]

    def cut(i: int) -> np.ndarray:
        picture, place = read(i), box(i)
        try:
            return crop_box(picture, place, scale)
        except InputError as error:
            raise DecodeError(f"{examples.name}, {examples.keys[i]}: {error}") from error

    digest = examples.checksum or examples.content
    return dataclasses.replace(
        examples,
        inputs={**examples.inputs, "image": cut},
        checksum=lambda i: f"{digest(i)} {_text(box(i))}",  # the same file cut elsewhere is another picture
        face_crop="landmarks" if scale == LANDMARK_SCALE else "box",
    )


def _round(value: float) -> int:
    # Python's round() rounds halves to even: equal boxes at odd and even positions would get different crops.
    return math.floor(value + 0.5)


def _text(box: Box) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
