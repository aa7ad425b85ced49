"""Real faces on a plain wall, for tests of whoever has to find them; the pictures are DiffusionFER's."""

import io
import pathlib
import zipfile

import numpy as np
from PIL import Image


def load_faces(data: pathlib.Path, every: int) -> list[Image.Image]:
    """Every so-manieth picture of DiffusionFER under the folder of real data: crops that a face just fills."""
    with zipfile.ZipFile(data / "diffusionfer" / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::every]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]


def hang(face: Image.Image, size: tuple[int, int], left: int, top: int, side: int) -> np.ndarray:
    """A grey picture of (width, height) pixels with the face in a square of it."""
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    picture[top : top + side, left : left + side] = np.asarray(face.resize((side, side)))
    return picture


def overlap(box, other) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1))
    area = max(width, 0) * max(height, 0)
    return area / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)) - area)
