"""Occlusion maps: which places of a picture an answer depends on.

Zeiler and Fergus. Visualizing and understanding convolutional networks. ECCV 2014, section 4.2: a grey square slides
over the picture, and the probability of the class is recorded at each place. Side, step, grey level and the mean over
the squares that cover a pixel are [ours].
"""

import dataclasses
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from emokd.errors import InputError
from emokd.inference.pictures import Picture, as_pixels
from emokd.inference.signature import IMAGE
from emokd.inference.student import Student

_SQUARES = 4  # squares side by side that span the picture
_STEPS = 4  # steps in which the square moves by its side
_OPACITY = 0.5
_COLOURS = ((0.1, 0.9, 0.8), (0.2, 0.9, 0.1), (0.8, 0.9, 0.1))  # red, green and blue of falls of -1, 0 and 1


@dataclasses.dataclass(frozen=True, eq=False)
class Occlusion:
    """How the probability of a class changes where the picture is covered.

    Attributes:
      label: the class.
      probability: its probability for the uncovered picture.
      drop: for each pixel, how far the probability falls: the mean over the squares that cover it; negative where
        the probability rises.
      canvas: the picture as the model reads it.
    """

    label: str
    probability: float
    drop: Float[np.ndarray, "S S"]
    canvas: UInt8[np.ndarray, "S S 3"]

    def draw(self) -> Image.Image:
        """The picture overlaid with the map: red where covering lowers the probability, blue where it raises it."""
        largest = max(float(np.abs(self.drop).max()), 1e-12)
        colours = np.stack([np.interp(self.drop / largest, (-1, 0, 1), channel) for channel in _COLOURS], axis=-1)
        mixed = (1 - _OPACITY) * self.canvas / 255 + _OPACITY * colours
        return Image.fromarray((255 * mixed).round().astype(np.uint8))

    def png(self) -> bytes:
        """`draw` as the bytes of a PNG file."""
        file = io.BytesIO()
        self.draw().save(file, "PNG")
        return file.getvalue()


def explain(student: Student, picture: Picture, *, head: str = "expression", label: str = "") -> Occlusion:
    """Computes the occlusion map of a classifying head's answer.

    Args:
      student: a model that takes a picture.
      picture: the picture to explain.
      head: a classifying head.
      label: the class whose probability is mapped; empty: the most probable one.

    Raises:
      InputError: the model takes no picture, has no such head or class, or the picture cannot be read.
    """
    student.require_pictures()
    canvas = student.to_canvas(as_pixels(picture, student.seen_as.canvas))
    side = len(canvas)
    known = {name: classes for name, classes in student.signature.heads.items() if classes}
    if head not in known:
        raise InputError(f"The model has no classifying head {head!r}. It has: {', '.join(known) or 'none'}.")
    clear = student.outputs({IMAGE: canvas[None]})[head][0]
    classes = known[head]
    if label and label not in classes:
        raise InputError(f"The head {head!r} has no class {label!r}. It has: {', '.join(classes)}.")
    asked = classes.index(label) if label else int(clear.argmax())
    squares = _squares(side)
    grey = canvas.reshape(-1, 3).mean(0).round().astype(np.uint8)
    covered = np.concatenate(
        [
            student.outputs({IMAGE: _cover(canvas, grey, squares[start : start + student.batch_size])})[head][:, asked]
            for start in range(0, len(squares), student.batch_size)
        ]
    )
    falls = clear[asked] - covered
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for fall, (top, left, bottom, right) in zip(falls, squares, strict=True):
        total[top:bottom, left:right] += fall
        count[top:bottom, left:right] += 1
    return Occlusion(classes[asked], float(clear[asked]), total / count, canvas)


def _cover(canvas: np.ndarray, grey: np.ndarray, squares: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Copies of the picture, [B, S, S, 3], each with one of the squares covered in grey."""
    pictures = np.repeat(canvas[None], len(squares), axis=0)
    for picture, (top, left, bottom, right) in zip(pictures, squares, strict=True):
        picture[top:bottom, left:right] = grey
    return pictures


def _squares(side: int) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of every place of the square; clipped at the borders, so every pixel is covered."""
    size = max(1, side // _SQUARES)
    step = max(1, size // _STEPS)
    starts = range(step - size, side, step)
    spans = [(max(0, start), min(side, start + size)) for start in starts]
    return [(top, left, bottom, right) for top, bottom in spans for left, right in spans]
