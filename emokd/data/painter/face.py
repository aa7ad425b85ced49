"""Draws a face: hair, head, eyes, brows, nose and mouth, each as a signed distance in face coordinates."""

import dataclasses

import numpy as np
from jaxtyping import Float

from emokd.data.painter.canvas import Colour, blend, coverage, ellipse, mix, scaled, segment, unit_grid
from emokd.data.painter.geometry import Look, Muscles, Pose

Grid = Float[np.ndarray, "H W"]
Picture = Float[np.ndarray, "3 H W"]

_MOUTH_Y = 0.76
_EYE_Y = -0.08


@dataclasses.dataclass(frozen=True)
class _Part:
    """A window of the picture with the face coordinates of its pixels; `pixel` is a pixel's width in them."""

    picture: Picture
    x: Grid
    y: Grid
    pixel: float

    def fill(self, distance: Grid, colour: Colour | Picture, opacity: float = 1.0, soft: float = 0.0) -> None:
        cover = coverage(distance, self.pixel + soft)
        blend(self.picture, cover if opacity == 1.0 else cover * opacity, colour)


class _Frame:
    """The picture in face coordinates: flat ones for the silhouette, turned ones for what sits on the face."""

    def __init__(self, picture: Picture, pose: Pose):
        size = picture.shape[1]
        self._pose, self._size = pose, size
        half = 1.0 + pose.roll * pose.roll
        self._cos, self._sin = (1.0 - pose.roll * pose.roll) / half, 2.0 * pose.roll / half
        column, row = unit_grid(size)
        across, down = (column - pose.centre_x) * (1.0 / pose.scale), (row - pose.centre_y) * (1.0 / pose.scale)
        x, y = across * self._cos + down * self._sin, down * self._cos - across * self._sin
        pixel = 1.0 / (pose.scale * size)
        self.flat = _Part(picture, x, y, pixel)
        # A point of the front of a ball moves by sin(angle) times its depth when the ball turns.
        depth = np.sqrt(np.maximum(1.0 - 0.6 * (x * x + y * y), 0.1))
        self.turned = _Part(picture, x - pose.yaw * depth, y - pose.pitch * depth, pixel)

    def window(self, x: float, y: float, radius_x: float, radius_y: float, depth: float = 0.9) -> _Part:
        """The part of the picture around a point of the face; with depth 0, in flat coordinates."""
        pose = self._pose
        x, y = x + pose.yaw * depth, y + pose.pitch * depth
        centre_x = pose.centre_x + pose.scale * (x * self._cos - y * self._sin)
        centre_y = pose.centre_y + pose.scale * (x * self._sin + y * self._cos)
        tilt = abs(self._sin)
        reach_x = pose.scale * (radius_x + tilt * radius_y + 0.12) * self._size + 1
        reach_y = pose.scale * (radius_y + tilt * radius_x + 0.12) * self._size + 1
        rows = self._slice(centre_y * self._size, reach_y)
        columns = self._slice(centre_x * self._size, reach_x)
        full = self.turned if depth else self.flat
        return _Part(full.picture[:, rows, columns], full.x[rows, columns], full.y[rows, columns], full.pixel)

    def _slice(self, centre: float, reach: float) -> slice:
        return slice(min(max(int(centre - reach), 0), self._size), min(max(int(centre + reach) + 1, 0), self._size))


def draw_face(picture: Picture, look: Look, muscles: Muscles, pose: Pose, clothes: Colour) -> None:
    """Draws a head and shoulders over the picture.

    Args:
      picture: planar float32 picture [3, S, S], drawn upon.
      look: who it is.
      muscles: the expression.
      pose: where the head is, how it is turned, and where the light comes from.
      clothes: colour of the clothes.
    """
    frame = _Frame(picture, pose)
    _draw_shoulders(frame, look, clothes)
    skin = _draw_head(frame, look, muscles, pose)
    _draw_nose(frame, look, muscles, skin)
    _draw_mouth(frame, look, muscles, skin)
    _draw_eyes(frame, look, muscles, pose, skin)
    _draw_brows(frame, look, muscles)
    _draw_furrow(frame, muscles, skin)


def _head_distance(part: _Part, look: Look, muscles: Muscles) -> Grid:
    below = np.maximum(part.y, 0.0)
    narrowing = 1.0 + look.jaw * below * below * 0.35
    chin = 1.3 + 0.1 * min(muscles.opening, 1.2)
    radius_y = np.where(part.y > 0, np.float32(1.0 / chin), np.float32(1.0 / 1.25))
    radius = np.sqrt((part.x * narrowing * (1.0 / look.width)) ** 2 + (part.y * radius_y) ** 2)
    return (radius - 1.0) * look.width


def _draw_shoulders(frame: _Frame, look: Look, clothes: Colour) -> None:
    if look.hair_length > -0.4:
        part = frame.window(0.0, 0.1, 1.45, 1.75, depth=0.0)
        volume = look.hair_volume * look.width
        back = np.maximum(np.abs(part.x) - volume * (1.0 + 0.08 * part.y), part.y - look.hair_length)
        top = ellipse(part.x, part.y + 0.2, volume, 1.2 * look.hair_volume)
        part.fill(np.where(part.y < -0.2, top, back), scaled(look.hair, 0.8))
    part = frame.window(0.0, 1.6, 1.75, 0.95, depth=0.0)
    part.fill(np.maximum(np.abs(part.x) - 0.42, 0.7 - part.y), scaled(look.skin, 0.72))
    part.fill(ellipse(part.x, part.y - 2.75, 1.75, 1.2), clothes)


def _draw_head(frame: _Frame, look: Look, muscles: Muscles, pose: Pose) -> Colour:
    """Draws ears, head, beard and hair; returns the skin's colour in this light, for the parts upon it."""
    part = frame.flat
    shade = 1.0 + 0.16 * pose.light_x * part.x + 0.09 * pose.light_y * part.y
    part.fill(ellipse(np.abs(part.x) - look.width, part.y - 0.05, 0.13, 0.24), scaled(look.skin, 0.86))
    distance = _head_distance(part, look, muscles)
    lit = shade * np.clip(0.92 - 0.45 * distance, 0.75, 1.08)
    cover = coverage(distance, part.pixel)
    blend(part.picture, cover, np.stack([np.minimum(look.skin[c] * lit, 255.0) for c in range(3)]))

    turned = frame.turned
    if look.beard:
        stubble = np.maximum(distance + 0.02, 0.42 + 0.25 * (1.0 - turned.x * turned.x) - turned.y)
        part.fill(stubble, scaled(look.hair, 0.9), opacity=0.7, soft=0.1)
    offset = turned.x - look.parting
    fringe = look.hairline + 0.28 * offset * offset
    cap = ellipse(part.x, part.y + 0.12, look.width * look.hair_volume, 1.16 * look.hair_volume)
    hair = np.maximum(cap, turned.y - fringe)
    strands = shade * (0.9 + 0.2 * np.abs(turned.x * 4.0 - np.floor(turned.x * 4.0) - 0.5))
    if look.hair_length > -0.55:
        colour = np.stack([np.minimum(look.hair[c] * strands, 255.0) for c in range(3)])
        blend(part.picture, coverage(hair, part.pixel), colour)
    else:
        part.fill(np.maximum(hair, distance), look.hair, opacity=0.35, soft=0.15)
    return look.skin


def _draw_eyes(frame: _Frame, look: Look, muscles: Muscles, pose: Pose, skin: Colour) -> None:
    """Draws both eyes at once, mirrored: x points outward from each eye's centre."""
    width = look.eye_size
    part = frame.window(0.0, _EYE_Y, look.eye_distance + 0.36, 0.34)
    x = np.abs(part.x) - look.eye_distance
    y = part.y - _EYE_Y + look.eye_tilt * x
    bow = 1.0 - (x * (1.0 / width)) ** 2
    up = max(0.12 + 0.11 * muscles.lids - 0.02 * muscles.squint, 0.015)
    low = max(0.085 - 0.055 * muscles.squint + 0.02 * muscles.lids, 0.012)
    upper, lower = y + up * bow, y - low * bow
    opening = np.maximum(-upper, lower)
    part.fill(ellipse(x, y + 0.03, width * 1.25, 0.2), scaled(skin, 0.8), opacity=0.45, soft=0.12)
    part.fill(opening, (242.0, 240.0, 236.0))
    inside = coverage(opening, part.pixel)
    iris_x = np.copysign(x, part.x * x) - 0.06 * pose.gaze_x
    iris_y = y + (0.01 - 0.05 * pose.gaze_y)
    iris = ellipse(iris_x, iris_y, 0.095, 0.095)
    blend(part.picture, inside * coverage(iris, part.pixel), look.iris)
    blend(part.picture, inside * coverage(iris + 0.05, part.pixel), (14.0, 12.0, 12.0))
    glint = ellipse(iris_x - 0.03, iris_y + 0.035, 0.02, 0.02)
    blend(part.picture, inside * coverage(glint, part.pixel), (230.0, 230.0, 230.0))
    edge = np.abs(x) - (width + 0.02)
    part.fill(np.maximum(np.abs(upper) - 0.026, edge), scaled(mix(skin, (30.0, 18.0, 16.0), 0.8), 0.8))
    part.fill(np.maximum(np.abs(lower) - 0.01, edge), scaled(skin, 0.55), opacity=0.7)
    if muscles.squint > 0.05:
        bag = np.maximum(np.abs(lower - 0.09) - 0.014, np.abs(x) - 0.8 * width)
        part.fill(bag, scaled(skin, 0.62), opacity=min(0.8 * muscles.squint, 0.8))
    if look.glasses:
        part.fill(np.abs(ellipse(x, y - 0.01, 0.33, 0.3)) - 0.022, (34.0, 30.0, 34.0))


def _draw_brows(frame: _Frame, look: Look, muscles: Muscles) -> None:
    """Draws both brows at once, mirrored: -1 is a brow's inner end, 1 its outer end."""
    part = frame.window(0.0, look.brow_height - 0.08, look.eye_distance + 0.3, 0.36)
    along = (np.abs(part.x) - look.eye_distance) * (1.0 / 0.25)
    height = look.brow_height - 0.15 * muscles.brow_raise
    line = height + 0.11 * muscles.brow_slant * along - 0.05 * (1.0 - along * along)
    line -= np.copysign(np.float32(0.1 * muscles.brow_skew), part.x * muscles.brow_skew)
    inner = -0.95 - 0.25 * max(-muscles.brow_slant, 0.0)
    thickness = look.brow_thickness * (1.15 - 0.3 * np.abs(along))
    distance = np.maximum(np.abs(part.y - line) - thickness, np.maximum(along - 1.05, inner - along) * 0.25)
    part.fill(distance, mix(scaled(look.hair, 0.75), scaled(look.skin, 0.3), 0.25))


def _draw_furrow(frame: _Frame, muscles: Muscles, skin: Colour) -> None:
    """Vertical lines between lowered brows, horizontal ones across the forehead above raised brows."""
    anger = min(max(-muscles.brow_slant, 0.0) * 0.9, 0.9)
    dark = scaled(skin, 0.5)
    if anger > 0.02:
        part = frame.window(0.0, -0.38, 0.12, 0.16)
        part.fill(segment(np.abs(part.x), part.y, (0.05, -0.46), (0.06, -0.3), 0.012), dark, anger)
    raised = min(max(muscles.brow_raise - 0.2, 0.0), 0.8)
    if raised > 0.02:
        part = frame.window(0.0, -0.68, 0.5, 0.1)
        for line in (-0.72, -0.64):
            bent = part.y - line - 0.06 * part.x * part.x
            part.fill(np.maximum(np.abs(bent) - 0.008, np.abs(part.x) - 0.42), dark, opacity=raised)


def _draw_nose(frame: _Frame, look: Look, muscles: Muscles, skin: Colour) -> None:
    dark, pale = scaled(skin, 0.62), mix(skin, (255.0, 255.0, 255.0), 0.3)
    tip = look.nose_length - 0.05 * min(muscles.wrinkle, 1.2)
    wide = look.nose_width * (1.0 + 0.2 * min(muscles.wrinkle, 1.2))
    part = frame.window(0.0, 0.2, 0.34, 0.42)
    part.fill(ellipse(part.x, part.y - tip + 0.3, 0.05, 0.3), pale, opacity=0.4, soft=0.1)
    part.fill(segment(part.x, part.y, (wide * 0.6, -0.1), (wide, tip - 0.04), 0.015), dark, opacity=0.5, soft=0.04)
    part.fill(ellipse(part.x, part.y - tip - 0.03, wide, 0.05), dark, opacity=0.35, soft=0.05)
    part.fill(ellipse(np.abs(part.x) - wide * 0.55, part.y - tip - 0.03, 0.045, 0.03), scaled(skin, 0.32))
    wrinkle = min(muscles.wrinkle, 1.0)
    if wrinkle > 0.02:
        for line in (-0.14, -0.05, 0.04):
            bent = part.y - line + 0.9 * part.x * part.x
            part.fill(np.maximum(np.abs(bent) - 0.016, np.abs(part.x) - 0.16), scaled(skin, 0.45), opacity=wrinkle)


def _draw_mouth(frame: _Frame, look: Look, muscles: Muscles, skin: Colour) -> None:
    width = look.mouth_width * (1.0 + 0.28 * muscles.stretch)
    curve = muscles.curve + look.resting_curve
    part = frame.window(0.0, _MOUTH_Y + 0.04, 0.72, 0.45)
    along = part.x * (1.0 / width)
    square = along * along
    bow = np.maximum(1.0 - square, 0.0)
    pulled = np.maximum(along if muscles.smirk > 0 else -along, 0.0)
    middle = _MOUTH_Y + curve * (0.05 - 0.15 * square) - 0.15 * abs(muscles.smirk) * pulled * pulled
    opening = min(muscles.opening, 1.4)
    top = middle - (0.05 * opening + 0.11 * muscles.lip_raise) * bow
    bottom = middle + (0.3 * opening + 0.02 * muscles.lip_raise) * bow
    thickness = look.lip_thickness * max(1.0 - 0.75 * muscles.press, 0.12)
    lips_top, lips_bottom = top - 0.8 * thickness * bow - 0.008, bottom + 1.1 * thickness * bow + 0.008
    ends = (np.abs(along) - 1.0) * width

    fold = min(0.55 * max(muscles.curve, 0.0) + 0.6 * muscles.lip_raise + 0.4 * muscles.wrinkle, 0.9)
    if fold > 0.02:
        _draw_fold(part, width, curve, skin, fold, 0.0)
    if abs(muscles.smirk) > 0.02:
        _draw_fold(part, width, curve, skin, min(0.7 * abs(muscles.smirk), 0.9), muscles.smirk)
    lips = mix(scaled(skin, 0.8), (165.0, 55.0, 60.0), 0.5)
    part.fill(np.maximum(np.maximum(lips_top - part.y, part.y - lips_bottom), ends), lips)
    gap = np.maximum(np.maximum(top - part.y, part.y - bottom), ends)
    if opening > 0.03 or muscles.lip_raise > 0.05:
        part.fill(gap, (62.0, 18.0, 22.0))
        teeth = np.maximum(gap, part.y - top - 0.09)
        part.fill(np.maximum(teeth, np.abs(along) - 0.85), (238.0, 234.0, 224.0))
    part.fill(np.maximum(np.abs(part.y - top) - 0.014, ends), scaled(lips, 0.42))
    corner = _MOUTH_Y - 0.1 * curve - np.where(pulled > 0, np.float32(0.15 * abs(muscles.smirk)), np.float32(0.0))
    part.fill(ellipse(np.abs(part.x) - width, part.y - corner, 0.03, 0.03), scaled(skin, 0.5), opacity=0.8)


def _draw_fold(part: _Part, width: float, curve: float, skin: Colour, depth: float, side: float) -> None:
    """The line from the nose past a corner of the mouth: on both sides, or on the given one if it is not 0."""
    x = np.abs(part.x) if side == 0 else part.x if side > 0 else -part.x
    line = segment(x, part.y, (0.22, 0.38), (width + 0.08, 0.7 - 0.06 * curve), 0.012)
    part.fill(line, scaled(skin, 0.6), opacity=depth, soft=0.02)
