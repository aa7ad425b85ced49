"""Finds pairs of rows that lie close together, and joins pairs into sets (union-find)."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

_ROWS, _COLUMNS = 1024, 8192
_STEPS = 8  # of the power iteration; the axis need not be the best, only a good one


def close_pairs(
    points: Float[np.ndarray, "N D"], distance: float, either_sign: Float[np.ndarray, "N E"] | None = None
) -> Iterator[Int[np.ndarray, "P 2"]]:
    """Pairs of rows whose Euclidean distance is at most `distance`, up to rounding. [ours]

    Rows are sorted along an axis of large variance, and each is compared only with those within `distance` along it.
    That is exact, since a projection never lengthens a distance. The comparison is one matrix product per block.

    Args:
      points: float32; the cost is N^2 (D + E) / 2 multiplications at most.
      distance: in the points' unit.
      either_sign: further coordinates, which count as they are or all negated, whichever is closer: the odd part of a
        picture, which mirroring negates.

    Yields:
      Pairs of row indices, each pair once. Because of rounding a few may lie slightly further apart; callers that mind
      compute the distance again.
    """
    axis = _axis(points)
    along = points @ axis
    order = np.argsort(along, kind="stable")
    along, points = along[order], points[order]
    signed = None if either_sign is None else either_sign[order]
    squares = np.einsum("nd,nd->n", points, points)
    if signed is not None:
        squares = squares + np.einsum("nd,nd->n", signed, signed)
    reach = distance + 1e-3 * max(distance, 1e-3) + 1e-5 * float(np.abs(along).max(initial=0.0))
    for start in range(0, len(points), _ROWS):
        end = min(start + _ROWS, len(points))
        stop = int(np.searchsorted(along, along[end - 1] + reach, side="right"))
        for left in range(start, stop, _COLUMNS):
            right = min(left + _COLUMNS, stop)
            likeness = points[start:end] @ points[left:right].T
            if signed is not None:
                likeness += np.abs(signed[start:end] @ signed[left:right].T)
            sums = squares[start:end, None] + squares[None, left:right]
            # Squared norms have rounding errors in proportion to their size, and so has the slack.
            first, second = np.nonzero(sums * np.float32(1 - 2e-6) - 2 * likeness <= np.float32(distance**2))
            later = first + start < second + left
            if later.any():
                yield np.stack([order[first[later] + start], order[second[later] + left]], axis=1)


def _axis(points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D"]:
    """A unit vector along which the points vary much: their first principal axis, nearly."""
    some = points[:: max(1, len(points) // 4096)]
    some = some - some.mean(0)
    axis = np.ones(points.shape[1], np.float32) + np.arange(points.shape[1], dtype=np.float32) / points.shape[1]
    for _ in range(_STEPS):
        axis = axis / max(float(np.linalg.norm(axis)), 1e-20)
        axis = some.T @ (some @ axis)
    length = float(np.linalg.norm(axis))
    return axis / length if length > 0 else np.eye(1, points.shape[1], dtype=np.float32)[0]


class Ties:
    """Union-find over 0 to n - 1. `places`: n, or the root of each element to begin with."""

    def __init__(self, places: int | Sequence[int]):
        self._parent = list(range(places) if isinstance(places, int) else places)

    def root(self, i: int) -> int:
        """The element that represents i's set."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def tie(self, first: int, second: int) -> None:
        """Joins the sets of two elements."""
        self._parent[self.root(second)] = self.root(first)

    def tie_all(self, places: Sequence[int]) -> None:
        """Joins the sets of all these elements."""
        for i in places[1:]:
            self.tie(places[0], i)

    def roots(self) -> list[int]:
        """The root of each element."""
        return [self.root(i) for i in range(len(self._parent))]

    def sets(self) -> list[tuple[int, ...]]:
        """The sets of two or more elements, in order of their first."""
        members: dict[int, list[int]] = {}
        for i, root in enumerate(self.roots()):
            members.setdefault(root, []).append(i)
        return [tuple(elements) for elements in members.values() if len(elements) > 1]
