"""Smooths a network's outputs over the frames of a video."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emokd.errors import InputError


def smooth_over_time(
    frames: Float[np.ndarray, "T *N"], decay: float | Float[np.ndarray, " T"]
) -> Float[np.ndarray, "T *N"]:
    """Exponential moving average along the first axis: s_0 = x_0, s_t = d_t s_{t-1} + (1 - d_t) x_t. [ours]

    Args:
      frames: one value, or array of values, for each frame, in order.
      decay: d, the weight of the previous average, in [0, 1), one for all frames or one for each (the first is not
        used); 0 changes nothing.

    Raises:
      InputError: `decay` is out of range, or there is no frame.
    """
    if not len(frames):
        raise InputError("There is no frame to smooth. Give the answers for at least one.")
    decays = np.broadcast_to(np.asarray(decay, np.float64), len(frames))
    wrong = decays[~((decays >= 0) & (decays < 1))]
    if len(wrong):
        raise InputError(f"The decay of smoothing over time must be at least 0 and below 1, not {wrong[0]}.")
    smooth = np.array(frames)
    for t, d in enumerate(decays[1:].tolist(), 1):
        if d:  # where it is 0, not even a past that is not a number counts
            smooth[t] = d * smooth[t - 1] + (1 - d) * smooth[t]
    return smooth


class Smoother:
    """Exponential moving average over the frames that have an answer, across batches. [ours]

    The weight of the past is exp(-dt / seconds), with dt the time since the frame before that has an answer: frames at
    irregular times, and a gap, count by their times. After a gap longer than the time constant the average starts
    afresh, because the next face may be another person's.
    """

    def __init__(self, seconds: float):
        """Begins without a past.

        Args:
          seconds: the time constant.

        Raises:
          InputError: the time constant is not positive and finite.
        """
        if not (seconds > 0 and math.isfinite(seconds)):
            raise InputError(f"The time constant of smoothing must be a positive number of seconds, not {seconds}.")
        self._seconds = seconds
        self._past: Float[np.ndarray, "1 N"] | None = None
        self._time = -math.inf

    def __call__(
        self, outputs: Mapping[str, Float[np.ndarray, "T _"]], times: Sequence[float]
    ) -> dict[str, Float[np.ndarray, "T _"]]:
        """Smooths the outputs of successive frames, at `times` in seconds."""
        values = np.concatenate(list(outputs.values()), axis=1)
        passed = np.diff([self._time, *times])
        # A frame of the same time as the one before it would have the weight 0 and the past 1.
        decays = np.where(passed > self._seconds, 0, np.exp(-np.maximum(passed, 0) / self._seconds))
        decays = np.minimum(decays, np.nextafter(1, 0))
        past = values[:1] if self._past is None else self._past
        # The last average goes in front, so that the new one continues it.
        smooth = smooth_over_time(np.concatenate([past, values]), np.concatenate([[0], decays]))[1:]
        self._past, self._time = smooth[-1:], times[-1]
        ends = np.cumsum([v.shape[1] for v in outputs.values()])[:-1]
        return dict(zip(outputs, np.split(smooth, ends, axis=1), strict=True))
