"""The face painter: synthetic pictures of expressive faces, needing no licence and no network.

SYNTHETIC: nobody is depicted, and nothing learnt from these pictures is evidence about people or about a
published method. They exist so that everything in this project can be run, tested and shown.
"""

import numpy as np
from jaxtyping import UInt8

from emokd.data.painter.face import draw_face
from emokd.data.painter.geometry import look_of, muscles_of, pose_of
from emokd.data.painter.random import Purpose, Stream
from emokd.data.painter.scene import draw_scene
from emokd.data.painter.state import State, sample_state

VERSION = "1.0.0"
"""Changes whenever any painted pixel, trace, sound or label does; the golden test then gets new values."""

MUSCLE_NOISE = 0.22
"""How far a face strays from its expression, in units of a clear one: sets how hard the task is. [ours]"""


def paint(seed: int, index: int, size: int) -> dict[str, np.ndarray | int]:
    """Paints example `index` of the synthetic data set `seed`: a pure function of its arguments.

    Args:
      seed: which data set, at least 0.
      index: which example, at least 0.
      size: width and height of the picture in pixels, at least 16. The same example looks the same at any size,
        but for the sensor's noise.

    Returns:
      image: uint8 RGB [size, size, 3].
      expression, identity, scene: ids, see `state.EXPRESSIONS`, `IDENTITIES`, `SCENES`.
      valence_arousal: float32 [2], each in [-1, 1].
    """
    state = sample_state(seed, index)
    return {
        "image": _paint_state(state, seed, index, size),
        "expression": state.expression,
        "valence_arousal": np.array([state.valence, state.arousal], np.float32),
        "identity": state.identity,
        "scene": state.scene,
    }


def paint_image(seed: int, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The picture of `paint` alone."""
    return _paint_state(sample_state(seed, index), seed, index, size)


def _paint_state(state: State, seed: int, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    face = Stream(seed, index, Purpose.FACE)
    pose = pose_of(face)
    muscles = muscles_of(state, face, MUSCLE_NOISE)
    clothes = (face.uniform(20.0, 230.0), face.uniform(20.0, 230.0), face.uniform(20.0, 230.0))
    exposure, warmth = face.uniform(0.75, 1.15), face.normal(0.05)

    picture = np.empty((3, size, size), np.float32)
    draw_scene(picture, state.scene, Stream(seed, index, Purpose.SCENE))
    draw_face(picture, look_of(state.identity), muscles, pose, clothes)

    sensor = Stream(seed, index, Purpose.SENSOR)
    noise = sensor.uniform(2.0, 9.0)
    for plane, gain in zip(picture, (exposure * (1.0 + warmth), exposure, exposure * (1.0 - warmth)), strict=True):
        plane *= gain
    picture += sensor.normals(3, size, size) * noise
    picture += 0.5
    np.minimum(np.maximum(picture, 0.0, out=picture), 255.0, out=picture)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))
