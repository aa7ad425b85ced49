"""Drawing with signed distances: anti-aliased coverage, blending, smooth noise.

Pictures are planar float32 [3, height, width] in [0, 255]. Only +, -, *, /, sqrt, floor, comparisons and
copies are used, each rounded as IEEE 754 prescribes, and no sums over many numbers: a picture has the same
bits on every machine, whatever its vector units.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Colour = tuple[float, float, float]


def coverage(distance: Float[np.ndarray, "*shape"], softness: float) -> Float[np.ndarray, "*shape"]:
    """The share of each pixel inside a shape, from the signed distance (negative inside).

    Args:
      distance: signed distance, in any unit.
      softness: width of the edge in the same unit; one pixel for a sharp edge.
    """
    cover = distance * (-1.0 / softness)
    cover += 0.5
    np.minimum(cover, 1.0, out=cover)
    return np.maximum(cover, 0.0, out=cover)


def blend(
    picture: Float[np.ndarray, "3 H W"], cover: Float[np.ndarray, "H W"], colour: Colour | Float[np.ndarray, "3 H W"]
) -> None:
    """Blends a colour (one, or one per pixel) into the picture with opacity `cover` in [0, 1], in place."""
    over = np.array(colour, np.float32)[:, None, None] if isinstance(colour, tuple) else colour
    step = over - picture
    step *= cover
    picture += step


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mixes two colours: (1 - share) * first + share * second."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """The colour, darker (factor below 1) or lighter."""
    red, green, blue = (factor * value for value in colour)
    return red, green, blue


def ellipse(
    x: Float[np.ndarray, "H W"], y: Float[np.ndarray, "H W"], radius_x: float, radius_y: float
) -> Float[np.ndarray, "H W"]:
    """Approximate signed distance to an ellipse around the origin; exact for circles, and good near every edge."""
    x, y = x * (1.0 / radius_x), y * (1.0 / radius_y)
    x *= x
    y *= y
    x += y
    np.sqrt(x, out=x)
    x -= 1.0
    x *= min(radius_x, radius_y)
    return x


def segment(
    x: Float[np.ndarray, "H W"],
    y: Float[np.ndarray, "H W"],
    start: Sequence[float],
    end: Sequence[float],
    thickness: float,
) -> Float[np.ndarray, "H W"]:
    """Signed distance to a straight stroke with round ends and the given half thickness."""
    (ax, ay), (bx, by) = start, end
    dx, dy = bx - ax, by - ay
    along = ((x - ax) * dx + (y - ay) * dy) * (1.0 / (dx * dx + dy * dy))
    np.maximum(np.minimum(along, 1.0, out=along), 0.0, out=along)
    return np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2) - thickness


@functools.lru_cache(maxsize=16)
def unit_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """X and y of each pixel's centre in [0, 1], both float32 [size, size]; do not write to them."""
    axis = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    for grid in (x, y):
        grid.flags.writeable = False
    return x, y


@functools.lru_cache(maxsize=64)
def _interpolation(size: int, knots: int) -> tuple[np.ndarray, np.ndarray]:
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32((knots - 1) / size)
    lower = np.minimum(np.floor(position), knots - 2).astype(np.int64)
    fraction = (position - lower).astype(np.float32)
    return lower, fraction * fraction * (3.0 - 2.0 * fraction)


def smooth_curve(knots: Float[np.ndarray, "M *rest"], size: int) -> Float[np.ndarray, "size *rest"]:
    """`size` points of a curve through the given knots, spread evenly, with smooth steps between them."""
    knots = knots.astype(np.float32)
    lower, weight = _interpolation(size, len(knots))
    rows = knots[lower]
    return rows + (knots[lower + 1] - rows) * weight.reshape(-1, *[1] * (knots.ndim - 1))


def smooth_noise(knots: Float[np.ndarray, "M N"], size: int) -> Float[np.ndarray, "size size"]:
    """A size x size field through the given knots, spread evenly over the picture."""
    return smooth_curve(smooth_curve(knots, size).T, size).T
