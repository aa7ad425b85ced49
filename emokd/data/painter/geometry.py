"""Faces as numbers: what a person looks like, how a state moves the face, and how the head is held.

Face coordinates: x to the right and y down as seen in the picture, origin between eyes and nose; the cheeks
are at x = -1 and 1, the eyes near y = -0.1, the mouth near y = 0.75, the chin near y = 1.3.
"""

import dataclasses
import functools
import math

from emokd.data.painter.canvas import Colour, mix
from emokd.data.painter.random import Purpose, Stream
from emokd.data.painter.state import EXPRESSIONS, State

_SKIN = ((248.0, 214.0, 190.0), (224.0, 172.0, 132.0), (172.0, 118.0, 82.0), (104.0, 68.0, 48.0))
_HAIR = (
    (28.0, 22.0, 20.0),
    (74.0, 46.0, 28.0),
    (150.0, 96.0, 48.0),
    (214.0, 178.0, 110.0),
    (158.0, 62.0, 34.0),
    (168.0, 166.0, 164.0),
)
_IRIS = ((70.0, 44.0, 26.0), (64.0, 104.0, 150.0), (76.0, 118.0, 74.0), (40.0, 30.0, 26.0))


@dataclasses.dataclass(frozen=True)
class Look:
    """What stays the same in every picture of a person. Lengths are in face coordinates, the rest are shares."""

    width: float
    jaw: float
    skin: Colour
    hair: Colour
    iris: Colour
    hair_length: float
    hair_volume: float
    hairline: float
    parting: float
    eye_distance: float
    eye_size: float
    eye_tilt: float
    brow_height: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_thickness: float
    resting_curve: float
    beard: bool
    glasses: bool


@functools.lru_cache(maxsize=64)
def look_of(identity: int) -> Look:
    """The looks of a person; the cast is the same under every seed."""
    stream = Stream(0, identity, Purpose.CAST)
    tone = stream.uniform(0.0, 2.999)
    lighter, darker = _SKIN[int(tone)], _SKIN[int(tone) + 1]
    return Look(
        skin=mix(lighter, darker, tone - int(tone)),
        hair=_HAIR[stream.choice([1.0] * 6)],
        iris=_IRIS[stream.choice([1.0] * 4)],
        width=stream.uniform(0.88, 1.06),
        jaw=stream.uniform(0.05, 0.45),
        hair_length=(-0.6, 0.1, 1.0, 1.7)[stream.choice([1.0] * 4)] + stream.uniform(-0.1, 0.1),
        hair_volume=stream.uniform(1.04, 1.22),
        hairline=stream.uniform(-1.02, -0.72),
        parting=stream.uniform(-0.5, 0.5),
        eye_distance=stream.uniform(0.37, 0.45),
        eye_size=stream.uniform(0.17, 0.22),
        eye_tilt=stream.uniform(-0.12, 0.12),
        brow_height=stream.uniform(-0.40, -0.34),
        brow_thickness=stream.uniform(0.03, 0.055),
        nose_length=stream.uniform(0.30, 0.42),
        nose_width=stream.uniform(0.12, 0.19),
        mouth_width=stream.uniform(0.36, 0.46),
        lip_thickness=stream.uniform(0.05, 0.1),
        resting_curve=stream.uniform(-0.12, 0.12),
        beard=stream.uniform() < 0.25,
        glasses=stream.uniform() < 0.25,
    )


@dataclasses.dataclass(frozen=True)
class Muscles:
    """How far the face is moved from rest, in units of a clear expression.

    Attributes:
      curve: corners of the mouth up (positive) or down.
      opening: jaw drops.
      stretch: mouth wider (positive) or rounder.
      press: lips pressed thin.
      lip_raise: the upper lip is drawn up, baring teeth.
      smirk: one corner of the mouth is drawn up and back.
      brow_raise: brows up or down.
      brow_slant: inner ends up (worry) or down (anger).
      brow_skew: one brow higher than the other.
      lids: upper lids wide open (positive) or drooping.
      squint: lower lids raised.
      wrinkle: the nose is wrinkled.
    """

    curve: float
    opening: float
    stretch: float
    press: float
    lip_raise: float
    smirk: float
    brow_raise: float
    brow_slant: float
    brow_skew: float
    lids: float
    squint: float
    wrinkle: float


_MUSCLES = tuple(field.name for field in dataclasses.fields(Muscles))
_EXPRESSION_MOVES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"curve": 0.85, "opening": 0.2, "stretch": 0.5, "squint": 0.6, "lip_raise": 0.3},
    "sad": {"curve": -0.75, "brow_slant": 0.85, "brow_raise": 0.1, "lids": -0.45, "stretch": -0.1},
    "surprise": {"opening": 0.8, "stretch": -0.45, "brow_raise": 0.85, "lids": 0.6},
    "fear": {"opening": 0.35, "stretch": 0.5, "brow_raise": 0.5, "brow_slant": 0.7, "lids": 0.65, "curve": -0.35},
    "disgust": {"wrinkle": 0.9, "lip_raise": 0.8, "curve": -0.45, "brow_raise": -0.4, "squint": 0.6, "lids": -0.25},
    "anger": {"brow_raise": -0.6, "brow_slant": -0.9, "press": 0.8, "curve": -0.4, "lids": 0.25, "squint": 0.25},
    "contempt": {"smirk": 0.9, "brow_skew": 0.5, "lids": -0.25, "press": 0.25, "stretch": 0.1},
}
_VALENCE_MOVES = {"curve": 0.4, "brow_slant": 0.1, "squint": 0.1, "press": -0.1}
_AROUSAL_MOVES = {"opening": 0.3, "lids": 0.35, "brow_raise": 0.15, "stretch": 0.1}


def muscles_of(state: State, stream: Stream, noise: float) -> Muscles:
    """How a face shows a state: a smooth function of it, plus the noise of the moment.

    Args:
      state: the emotion shown.
      stream: chooses the noise and the side of asymmetric expressions.
      noise: its standard deviation, in units of a clear expression.
    """
    moves = _EXPRESSION_MOVES[EXPRESSIONS[state.expression]]
    values = {}
    for name in _MUSCLES:
        mood = state.valence * _VALENCE_MOVES.get(name, 0.0) + state.arousal * _AROUSAL_MOVES.get(name, 0.0)
        values[name] = state.intensity * moves.get(name, 0.0) + mood + stream.normal(noise)
    side = 1.0 if stream.uniform() < 0.5 else -1.0
    for name in ("smirk", "brow_skew"):
        values[name] *= side
    for name in ("press", "lip_raise", "squint", "wrinkle", "opening"):
        values[name] = _positive_part(values[name])
    return Muscles(**values)


def _positive_part(value: float) -> float:
    """The positive part with a rounded corner: smooth, above 0, and nearly the value itself from 0.3 up."""
    return 0.5 * (value + math.sqrt(value * value + 0.01))


@dataclasses.dataclass(frozen=True)
class Pose:
    """How the head is held and lit: centre and scale in picture widths, small rotations, light from the side.

    `roll` is the tangent of half the angle; `yaw` and `pitch` are the sines of theirs.
    """

    centre_x: float
    centre_y: float
    scale: float
    roll: float
    yaw: float
    pitch: float
    light_x: float
    light_y: float
    gaze_x: float
    gaze_y: float


def pose_of(stream: Stream) -> Pose:
    """A random pose, independent of the emotion."""
    return Pose(
        centre_x=0.5 + stream.normal(0.04),
        centre_y=0.47 + stream.normal(0.03),
        scale=stream.uniform(0.255, 0.315),
        roll=stream.normal(0.05),
        yaw=stream.normal(0.16),
        pitch=stream.normal(0.09),
        light_x=stream.uniform(-1.0, 1.0),
        light_y=stream.uniform(-1.0, 0.4),
        gaze_x=stream.normal(0.2),
        gaze_y=stream.normal(0.1),
    )
