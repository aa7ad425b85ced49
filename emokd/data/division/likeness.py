"""Finds copies whose bytes differ: pictures that were saved again, rows of tables that were written again."""

import dataclasses
import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int, UInt8

from emokd.data.division.neighbours import Ties, close_pairs
from emokd.data.examples import Examples, Rows
from emokd.errors import InputError

COARSE, FINE = 0.97, 0.93
"""The least correlation of near copies' grey thumbnails, at 8 x 8 and at 16 x 16 pixels. [ours]

Among FER+'s faces, which look most alike of all sets here, pairs above these show the same photograph. A JPEG of
quality 75, a copy at half or one and a half times the size and a brighter copy have .99 and more; a copy that is
cropped by a twentieth of its side has less.
"""
FLAT = 2.0
"""Thumbnails whose grey levels (0 to 255) have a lower standard deviation show nothing that could be compared."""
SAME_ROW, NEAR_ROW = 1e-4, 1e-2
"""The largest distance of equal and of near rows: root mean square over columns, in units of each column's spread. They
allow for rounding to single precision and to two decimals. [ours]"""

_SIDE = 16
_DECODED = 64  # the least side of a picture from which its thumbnail is made
_READERS = 4
_PIECE = 256
_SAID_EVERY = 20.0  # seconds between lines of progress in the log
_ABSENT = 10.0  # stands for NaN, far from any value in units of the spread


@dataclasses.dataclass(frozen=True)
class Likeness:
    """Copies among examples.

    Attributes:
      same: sets of examples that are equal in every decoded pixel, or (rows) up to rounding.
      near: sets of near copies: each example is a near copy of another one of its set. Equal examples are among them.
    """

    same: tuple[tuple[int, ...], ...] = ()
    near: tuple[tuple[int, ...], ...] = ()


def find_copies(examples: Examples, among: Sequence[int]) -> Likeness:
    """Finds copies among the examples at the indices `among`, by the content of their inputs.

    Pictures (`Examples.pixels`) are near copies where their grey thumbnails, or one and the mirrored other, correlate
    by at least `COARSE` and `FINE`: compressed again, resized, grey, mirrored, brighter. Near copies are then decoded
    at full size to see which are equal. A picture that cannot be decoded is no copy. Rows in memory (`Rows`) are
    compared where all inputs are rows. Other inputs are not compared.
    """
    places = np.asarray(among, np.int64)
    if len(places) < 2:
        return Likeness()
    if examples.pixels is not None:
        likeness = _find_pictures(examples.name, examples.pixels, places)
    elif examples.inputs and all(isinstance(read, Rows) for read in examples.inputs.values()):
        likeness = _find_rows(examples, places)
    else:
        return Likeness()

    def named(sets: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(places[list(indices)].tolist()) for indices in sets)

    return Likeness(named(likeness.same), named(likeness.near))


Decode = Callable[[int, int], np.ndarray]
"""(example, least side) -> its picture, as `Examples.pixels`."""


def _find_pictures(name: str, pixels: Decode, places: np.ndarray) -> Likeness:
    started = time.monotonic()
    thumbnails = _each(pixels, places, _thumbnail, f"{name}: looking for copies of pictures")
    readable = np.array([i for i, thumbnail in enumerate(thumbnails) if thumbnail is not None], np.int64)
    if len(readable) < 2:
        return Likeness()
    pictures = np.stack([thumbnails[i] for i in readable.tolist()])
    flat = pictures.reshape(len(pictures), -1).std(axis=1) < FLAT
    ties = Ties(len(places))
    shown, pictures = readable[~flat], pictures[~flat]
    for pairs in _like(pictures):
        for pair in shown[pairs].tolist():
            ties.tie_all(pair)
    near = ties.sets()
    # Pictures of equal pixels have equal thumbnails, but for how a JPEG is reduced. So they are near copies, or flat.
    asked = sorted({i for members in near for i in members} | set(readable[flat].tolist()))
    by_pixels = defaultdict(list)
    digests = _each(pixels, places[asked], _digest, f"{name}: decoding near copies")
    for i, digest in zip(asked, digests, strict=True):
        if digest is not None:
            by_pixels[digest].append(i)
    logging.info(
        "%s: %d pictures were compared with each other in %.1f s.", name, len(readable), time.monotonic() - started
    )
    return Likeness(tuple(tuple(members) for members in by_pixels.values() if len(members) > 1), tuple(near))


def _each(pixels: Decode, places: np.ndarray, ask: Callable, doing: str) -> list:
    """`ask(pixels, i)` for each index i, computed by several threads; logs its progress as `doing`."""

    def piece(start: int) -> list:
        return [ask(pixels, int(i)) for i in places[start : start + _PIECE]]

    results: list = []
    said = time.monotonic()
    with ThreadPoolExecutor(_READERS) as pool:
        for chunk in pool.map(piece, range(0, len(places), _PIECE)):
            results += chunk
            if time.monotonic() - said > _SAID_EVERY:
                said = time.monotonic()
                logging.info("%s: %d of %d.", doing, len(results), len(places))
    return results


def _thumbnail(pixels: Decode, i: int) -> UInt8[np.ndarray, "16 16"] | None:
    try:
        picture = pixels(i, _DECODED)
    except InputError:  # reported and counted when training reads it
        return None
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _digest(pixels: Decode, i: int) -> bytes | None:
    try:
        picture = pixels(i, 0)
    except InputError:
        return None
    return hashlib.blake2b(str(picture.shape).encode() + picture.tobytes(), digest_size=16).digest()


def _like(pictures: UInt8[np.ndarray, "N 16 16"]) -> Iterator[Int[np.ndarray, "P 2"]]:
    """Pairs of thumbnails that correlate by at least `COARSE` and `FINE`, as they are or with one of them mirrored."""
    if not len(pictures):
        return
    fine = pictures.astype(np.int32)
    coarse = fine.reshape(len(fine), 8, 2, 8, 2).sum((2, 4))
    vectors = coarse.reshape(len(coarse), -1).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    square = vectors.reshape(-1, 8, 8)
    # A picture is the sum of an even part, which mirroring keeps, and an odd one, which it negates. The left half of
    # each says all.
    even, odd = (
        ((square + sign * square[:, :, ::-1])[:, :, :4] * np.float32(0.5**0.5)).reshape(len(square), -1)
        for sign in (1, -1)
    )
    for pairs in close_pairs(even, math.sqrt(2 - 2 * COARSE), odd):
        for start in range(0, len(pairs), 1 << 14):
            some = pairs[start : start + (1 << 14)]
            kept = _correlate(coarse, some, COARSE) & _correlate(fine, some, FINE)
            if kept.any():
                yield some[kept]


def _correlate(pictures: np.ndarray, pairs: np.ndarray, least: float) -> np.ndarray:
    """Whether each pair's correlation, as they are or with one mirrored, is at least `least`.

    Covariances are computed in integers, so that every machine decides alike.
    """
    first, second = pictures[pairs[:, 0]].astype(np.int64), pictures[pairs[:, 1]].astype(np.int64)
    n = first[0].size

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # n^2 times their covariance
        return n * (a * b).sum((1, 2)) - a.sum((1, 2)) * b.sum((1, 2))

    bound = least * np.sqrt(product(first, first).astype(np.float64) * product(second, second).astype(np.float64))
    best = np.maximum(product(first, second), product(first, second[:, :, ::-1]))
    return (best >= bound) & (bound > 0)


def equal_by_chance(examples: Examples, sets: Sequence[Sequence[int]]) -> list[bool]:
    """Which sets of equal rows are no copies: rows of few different values, such as counts, agree by chance. [ours]

    A set is taken for chance where more than .1 pairs of unrelated rows with its values are expected, if columns were
    independent. The frequency of a value in a column is counted outside of the set.
    """
    readers = list(examples.inputs.values())
    arrays = [read.raw() for read in readers if isinstance(read, Rows)]
    if examples.pixels is not None or not sets or not arrays or len(arrays) < len(readers):
        return [False] * len(sets)
    n = len(examples)
    first, size = np.array([members[0] for members in sets]), np.array([len(members) for members in sets])
    pairs = np.full(len(sets), n**2 / 2)
    for array in arrays:
        for column in array.reshape(n, -1).T:
            open_ = np.flatnonzero(pairs > 0.1)
            if not len(open_):
                return [False] * len(sets)
            ordered = np.sort(column)  # NaN is last
            asked = column[first[open_]]
            count = np.searchsorted(ordered, asked, side="right") - np.searchsorted(ordered, asked, side="left")
            pairs[open_] *= np.maximum(count - size[open_], 0) / n
    return (pairs > 0.1).tolist()


def _find_rows(examples: Examples, places: np.ndarray) -> Likeness:
    rows = [read.many(places) for read in examples.inputs.values() if isinstance(read, Rows)]
    values, rounding, varied = _in_spreads(np.concatenate([row.reshape(len(places), -1) for row in rows], axis=1))
    n, width = values.shape
    if not width:
        return Likeness()
    # Unrelated rows of few columns may lie close by chance. The limit is such that this is so for a pair of n rows in
    # fewer than one in ten sets.
    chance = 0.1 / n**2
    absent = values == _ABSENT
    near, same = Ties(n), Ties(n)
    for pairs in close_pairs(values.astype(np.float32), NEAR_ROW * math.sqrt(width)):
        difference = np.abs(values[pairs[:, 0]] - values[pairs[:, 1]])
        # Columns that are absent from both rows do not count: rows that share few columns lie close by chance, too.
        counted = varied & ~(absent[pairs[:, 0]] & absent[pairs[:, 1]])
        number = np.maximum(counted.sum(1), 1)
        gap = np.sqrt((np.maximum(difference - rounding, 0) ** 2).sum(1) / number)
        by_chance = chance ** (1 / number)
        for ties, limit in ((near, NEAR_ROW), (same, SAME_ROW)):
            for pair in pairs[gap <= np.minimum(limit, by_chance)].tolist():
                ties.tie_all(pair)
    return Likeness(tuple(same.sets()), tuple(near.sets()))


def _in_spreads(
    values: Float[np.ndarray, "N D"],
) -> tuple[Float[np.ndarray, "N d"], Float[np.ndarray, "d"], Bool[np.ndarray, "d"]]:
    """Standardizes columns robustly: distances from the median in units of the spread; drops constant columns.

    Returns:
      The standardized values, with `_ABSENT` for NaN; how far rounding to single precision may move a value of each
      column, in the same units; and which columns have a spread: the others differ only in which values are absent.
    """
    values = values.astype(np.float64)
    values = values[:, ~np.isnan(values).all(0)]
    absent = np.isnan(values)
    if not values.shape[1]:
        return values, np.zeros(0), np.zeros(0, bool)
    low, middle, high = np.nanquantile(values, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / 3.29  # the standard deviation, if the column is normally distributed
    spread = np.where(spread > 0, spread, np.nanstd(values, axis=0))
    kept = (spread > 0) | absent.any(0)
    unit = np.where(spread > 0, spread, 1.0)[kept]
    rounding = 2 * float(np.finfo(np.float32).eps) * np.nanmax(np.abs(values[:, kept]), axis=0) / unit
    scaled = np.clip((values[:, kept] - middle[kept]) / unit, -50, 50)
    return np.where(absent[:, kept], _ABSENT, scaled), rounding, (spread > 0)[kept]
