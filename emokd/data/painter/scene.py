"""Backgrounds of the synthetic pictures: eight kinds of scene, each different every time."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from emokd.data.painter.canvas import Colour, blend, coverage, ellipse, mix, scaled, smooth_noise, unit_grid
from emokd.data.painter.random import Stream
from emokd.data.painter.state import SCENES

Grid = Float[np.ndarray, "S S"]
Picture = Float[np.ndarray, "3 S S"]


def draw_scene(picture: Picture, scene: int, stream: Stream) -> None:
    """Fills the whole picture with a scene of the given kind.

    Args:
      picture: planar float32 picture, overwritten.
      scene: position in `state.SCENES`.
      stream: chooses everything that the kind leaves open: colours, horizon, objects.
    """
    _PAINTERS[SCENES[scene]](picture, stream)


def _jitter(colour: Colour, stream: Stream, amount: float = 18.0) -> Colour:
    red, green, blue = (value + stream.uniform(-amount, amount) for value in colour)
    return red, green, blue


def _gradient(picture: Picture, top: Colour, bottom: Colour, end: float = 1.0) -> None:
    _, y = unit_grid(picture.shape[1])
    share = np.minimum(y * (1.0 / end), 1.0)
    for channel in range(3):
        picture[channel] = top[channel] + share * (bottom[channel] - top[channel])


def _noise(stream: Stream, rows: int, columns: int, size: int) -> Grid:
    return smooth_noise(stream.uniforms(rows, columns), size)


def _ridge(stream: Stream, knots: int, size: int) -> Float[np.ndarray, "S"]:
    """A random skyline in [0, 1] with straight slopes, one height per column."""
    heights = stream.uniforms(knots).astype(np.float32)
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32((knots - 1) / size)
    lower = np.minimum(position.astype(np.int64), knots - 2)
    return heights[lower] + (heights[lower + 1] - heights[lower]) * (position - lower).astype(np.float32)


def _clouds(picture: Picture, stream: Stream, amount: float, until: float) -> None:
    size = picture.shape[1]
    _, y = unit_grid(size)
    field = 0.65 * _noise(stream, 7, 5, size) + 0.35 * _noise(stream, 14, 10, size)
    blend(picture, coverage(1.0 - amount - field, 0.25) * np.clip((until - y) * 5.0, 0.0, 0.9), (246.0, 246.0, 248.0))


def _sky(picture: Picture, stream: Stream) -> None:
    _gradient(picture, _jitter((70.0, 130.0, 215.0), stream), _jitter((190.0, 220.0, 245.0), stream))
    _clouds(picture, stream, stream.uniform(0.4, 0.6), 1.3)


def _sea(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    _, y = unit_grid(size)
    horizon = stream.uniform(0.28, 0.5)
    _gradient(picture, _jitter((110.0, 165.0, 220.0), stream), _jitter((225.0, 230.0, 230.0), stream), horizon)
    near, far = _jitter((20.0, 75.0, 110.0), stream), _jitter((60.0, 140.0, 165.0), stream)
    depth = np.clip((y - horizon) * (1.0 / (1.0 - horizon)), 0.0, 1.0)
    waves = coverage(0.62 - _noise(stream, 34, 6, size), 0.3) * (0.35 + 0.5 * depth)
    water = np.stack([far[c] + depth * (near[c] - far[c]) + 70.0 * waves for c in range(3)])
    blend(picture, coverage(horizon - y, 1.0 / size), water)


def _forest(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    x, y = unit_grid(size)
    _gradient(picture, _jitter((95.0, 150.0, 80.0), stream), _jitter((35.0, 70.0, 30.0), stream))
    for _ in range(stream.choice([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]) + 2):
        centre, lean, width = stream.uniform(0.0, 1.0), stream.uniform(-0.05, 0.05), stream.uniform(0.015, 0.05)
        bark = _jitter((75.0, 52.0, 34.0), stream)
        blend(picture, coverage(np.abs(x - centre - lean * (y - 0.5)) - width, 1.0 / size), bark)
    leaves = _noise(stream, 16, 16, size)
    crown = np.clip(1.5 - 2.2 * np.abs(y - 0.12), 0.25, 1.0)
    blend(picture, coverage(0.5 - leaves, 0.2) * crown * 0.85, _jitter((40.0, 105.0, 35.0), stream))
    blend(picture, coverage(0.72 - leaves, 0.15) * crown * 0.8, _jitter((150.0, 190.0, 80.0), stream))


def _mountain(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    _, y = unit_grid(size)
    _gradient(picture, _jitter((120.0, 165.0, 215.0), stream), _jitter((215.0, 225.0, 235.0), stream), 0.6)
    skyline = 0.12 + 0.38 * _ridge(stream, 5, size)
    rock, snow = _jitter((105.0, 105.0, 118.0), stream), (240.0, 243.0, 250.0)
    texture = 0.16 * _noise(stream, 10, 14, size)
    blend(picture, coverage(skyline[None, :] - y, 1.0 / size), rock)
    snowline = stream.uniform(0.1, 0.2)
    blend(picture, coverage(skyline[None, :] - y, 1.0 / size) * coverage(y - skyline - snowline + texture, 0.04), snow)
    meadow = stream.uniform(0.62, 0.72) + 0.12 * _ridge(stream, 4, size)
    blend(picture, coverage(meadow[None, :] - y, 1.0 / size), _jitter((95.0, 130.0, 70.0), stream))


def _desert(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    x, y = unit_grid(size)
    _gradient(picture, _jitter((150.0, 185.0, 215.0), stream), _jitter((250.0, 225.0, 180.0), stream), 0.5)
    sun_x, sun_y = stream.uniform(0.1, 0.9), stream.uniform(0.08, 0.2)
    blend(picture, coverage(ellipse(x - sun_x, y - sun_y, 0.06, 0.06), 0.03), (255.0, 245.0, 205.0))
    sand = _jitter((222.0, 175.0, 110.0), stream)
    for level, shade in ((0.38, 1.0), (0.55, 0.86), (0.74, 0.95)):
        dune = level + 0.14 * _noise(stream, 2, 4, size)
        blend(picture, coverage(dune - y, 1.0 / size), scaled(sand, shade * stream.uniform(0.93, 1.07)))
    ripples = coverage(0.6 - _noise(stream, 26, 5, size), 0.3) * coverage(0.5 - y, 0.2)
    blend(picture, 0.22 * ripples, scaled(sand, 0.6))


def _room(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    x, y = unit_grid(size)
    edge = 1.0 / size
    wall = mix(
        _jitter((205.0, 190.0, 165.0), stream, 25.0), _jitter((150.0, 165.0, 175.0), stream, 25.0), stream.uniform()
    )
    _gradient(picture, wall, scaled(wall, 0.88))
    floor = stream.uniform(0.75, 0.85)
    planks = 0.9 + 0.1 * coverage(np.abs((x * 6.0) - np.floor(x * 6.0) - 0.5) - 0.4, 0.1)
    wood = _jitter((130.0, 85.0, 50.0), stream)
    blend(picture, coverage(floor - y, edge), np.stack([wood[c] * planks for c in range(3)]))
    blend(picture, coverage(np.abs(y - floor) - 0.012, edge), (235.0, 232.0, 225.0))
    for side in (0.13, 0.87):
        width, height = stream.uniform(0.07, 0.13), stream.uniform(0.08, 0.17)
        inside = np.maximum(
            np.abs(x - side - stream.uniform(-0.04, 0.04)) - width, np.abs(y - stream.uniform(0.2, 0.4)) - height
        )
        blend(picture, coverage(inside - 0.018, edge), _jitter((95.0, 65.0, 40.0), stream))
        blend(picture, coverage(inside, edge), _jitter((170.0, 170.0, 165.0), stream, 80.0))


def _buildings(picture: Picture, stream: Stream, wall: Colour, lit: Colour, lit_share: float) -> None:
    size = picture.shape[1]
    x, y = unit_grid(size)
    left = stream.uniform(-0.1, 0.0)
    while left < 1.0:
        width, top = stream.uniform(0.13, 0.24), stream.uniform(0.1, 0.55)
        columns = slice(max(int(left * size), 0), min(int((left + width) * size), size))
        left += width
        if columns.start >= columns.stop:
            continue
        part, across, down = picture[:, :, columns], x[:, columns], y[:, columns]
        house = coverage(top - down, 1.0 / size)
        blend(part, house, scaled(_jitter(wall, stream, 14.0), stream.uniform(0.7, 1.15)))
        cell = stream.uniform(0.042, 0.055)
        window_x, window_y = (across - left) * (1.0 / cell), (down - top) * (0.8 / cell)
        cell_x, cell_y = np.floor(window_x), np.floor(window_y)
        pane = np.maximum(np.abs(window_x - cell_x - 0.5) - 0.28, np.abs(window_y - cell_y - 0.5) - 0.28)
        lottery = stream.uniforms(8, 64).astype(np.float32)[cell_x.astype(np.int64) % 8, cell_y.astype(np.int64) % 64]
        blend(part, house * coverage(pane, 0.25) * (lottery < lit_share), lit)


def _city(picture: Picture, stream: Stream) -> None:
    _gradient(picture, _jitter((150.0, 165.0, 180.0), stream), _jitter((215.0, 212.0, 205.0), stream))
    _buildings(picture, stream, (135.0, 125.0, 118.0), (70.0, 82.0, 98.0), 0.9)


def _night(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    x, y = unit_grid(size)
    _gradient(picture, _jitter((12.0, 14.0, 40.0), stream, 8.0), _jitter((45.0, 40.0, 85.0), stream, 12.0))
    stars = coverage(0.93 - _noise(stream, 26, 26, size), 0.08) * coverage(y - 0.55, 0.3)
    blend(picture, stars, (235.0, 235.0, 215.0))
    moon_x, moon_y = stream.uniform(0.08, 0.92), stream.uniform(0.08, 0.2)
    blend(picture, coverage(ellipse(x - moon_x, y - moon_y, 0.055, 0.055), 0.02), (240.0, 238.0, 215.0))
    _hills(picture, stream)


def _hills(picture: Picture, stream: Stream) -> None:
    size = picture.shape[1]
    _, y = unit_grid(size)
    for level, colour in ((0.5, (30.0, 32.0, 58.0)), (0.68, (16.0, 18.0, 34.0))):
        blend(picture, coverage(level + 0.2 * _noise(stream, 2, 5, size) - y, 1.0 / size), _jitter(colour, stream, 6.0))
    lights = coverage(0.9 - _noise(stream, 30, 30, size), 0.1) * coverage(0.62 - y, 0.05)
    blend(picture, lights, (250.0, 205.0, 110.0))


_PAINTERS: dict[str, Callable[[Picture, Stream], None]] = {
    "sky": _sky,
    "sea": _sea,
    "forest": _forest,
    "mountain": _mountain,
    "desert": _desert,
    "room": _room,
    "city": _city,
    "night": _night,
}
