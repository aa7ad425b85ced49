"""Means over seeds and paired differences, with Student-t intervals."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from emokd.errors import InputError


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
      mean: the mean of the n values.
      low: lower end of the interval; NaN where n is 1, because one run says nothing about its own spread.
      high: upper end, likewise.
      n: how many values there were.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float] | Float[np.ndarray, " N"], *, confidence: float = 0.95) -> Interval:
    """The mean of independent runs and its t-interval, mean +- t(n - 1) sd / sqrt(n).

    Args:
      values: one number per seed.
      confidence: coverage of the interval, strictly between 0 and 1.

    Raises:
      InputError: no values, a value that is not finite, or an impossible confidence.
    """
    values = _checked(values, "values")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"The confidence must lie strictly between 0 and 1, not {confidence}.")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(
    a: Sequence[float] | Float[np.ndarray, " N"],
    b: Sequence[float] | Float[np.ndarray, " N"],
    *,
    confidence: float = 0.95,
) -> Interval:
    """The mean of a - b over seeds and its t-interval; row i of both must come from the same seed.

    A positive mean says that `a` is the larger. A comparison worth showing has at least 5
    seeds; the caller sees how many there were in `n`.

    Raises:
      InputError: the two differ in length, are empty, or hold a value that is not finite.
    """
    a, b = _checked(a, "a"), _checked(b, "b")
    if len(a) != len(b):
        raise InputError(f"A paired difference needs the same seeds on both sides: a has {len(a)} values, b {len(b)}.")
    return mean_interval(a - b, confidence=confidence)


def _checked(values: Sequence[float] | np.ndarray, name: str) -> Float[np.ndarray, " N"]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise InputError(f"{name} must be a non-empty list of numbers, one per seed; its shape is {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(f"{name}[{bad[0]}] is {array[bad[0]]}. Leave out the seeds whose run failed, on both sides.")
    return array
