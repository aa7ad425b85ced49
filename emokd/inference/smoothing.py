"""Smooths a network's outputs over the frames of a video."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emokd.errors import InputError


def smooth_over_time(frames: Float[np.ndarray, "T *N"], decay: float) -> Float[np.ndarray, "T *N"]:
    """Exponential moving average along the first axis: s_0 = x_0, s_t = decay s_{t-1} + (1 - decay) x_t. [ours]

    Args:
      frames: one value, or array of values, for each frame, in order.
      decay: weight of the previous average, in [0, 1); 0 changes nothing.

    Raises:
      InputError: `decay` is out of range, or there is no frame.
    """
    if not len(frames):
        raise InputError("There is no frame to smooth. Give the answers for at least one.")
    if not 0 <= decay < 1:
        raise InputError(f"The decay of smoothing over time must be at least 0 and below 1, not {decay}.")
    smooth = np.array(frames)
    for t in range(1, len(smooth)):
        smooth[t] = decay * smooth[t - 1] + (1 - decay) * smooth[t]
    return smooth


class Smoother:
    """Exponential moving average over the frames that have an answer, across batches. [ours]

    The decay per frame is exp(-1 / (seconds x rate)). After a gap longer than the time constant the average starts
    afresh, because the next face may be another person's.
    """

    def __init__(self, seconds: float, rate: float):
        """Computes the decay.

        Args:
          seconds: the time constant.
          rate: frames per second.

        Raises:
          InputError: the time constant is not positive and finite.
        """
        if not (seconds > 0 and math.isfinite(seconds)):
            raise InputError(f"The time constant of smoothing must be a positive number of seconds, not {seconds}.")
        self._seconds, self._decay = seconds, math.exp(-1 / (seconds * rate))
        self._past: Float[np.ndarray, "1 N"] | None = None
        self._time = -math.inf

    def __call__(
        self, outputs: Mapping[str, Float[np.ndarray, "T _"]], times: Sequence[float]
    ) -> dict[str, Float[np.ndarray, "T _"]]:
        """Smooths the outputs of successive frames, at `times` in seconds."""
        values = np.concatenate(list(outputs.values()), axis=1)
        gaps = np.diff([self._time, *times]) > self._seconds
        edges = [0, *(np.flatnonzero(gaps[1:]) + 1), len(times)]
        smooth = np.concatenate([self._run(values[a:b], bool(gaps[a])) for a, b in itertools.pairwise(edges)])
        self._time = times[-1]
        ends = np.cumsum([v.shape[1] for v in outputs.values()])[:-1]
        return dict(zip(outputs, np.split(smooth, ends, axis=1), strict=True))

    def _run(self, values: Float[np.ndarray, "T N"], begins: bool) -> Float[np.ndarray, "T N"]:
        if begins or self._past is None:
            self._past = values[:1]
        # The last average goes in front, so that the new one continues it.
        smooth = smooth_over_time(np.concatenate([self._past, values]), self._decay)[1:]
        self._past = smooth[-1:]
        return smooth
