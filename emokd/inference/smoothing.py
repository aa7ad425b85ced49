"""Answers of a network for the frames of one video, made steady over time."""

import jax
from jaxtyping import Array, Float

from emokd.errors import InputError


def smooth_over_time(frames: Float[Array, "T *N"], decay: float) -> Float[Array, "T *N"]:
    """Exponential moving average along the first axis: s_0 = x_0, s_t = decay s_{t-1} + (1 - decay) x_t. [ours]

    Args:
      frames: one value, or array of values, for each frame, in order.
      decay: share of the past that is kept, in [0, 1); 0 changes nothing.

    Raises:
      InputError: `decay` is out of range, or there is no frame.
    """
    if not len(frames):
        raise InputError("There is no frame to smooth. Give the answers for at least one.")
    if not 0 <= decay < 1:
        raise InputError(f"The decay of smoothing over time must be at least 0 and below 1, not {decay}.")

    def step(past, frame):
        past = decay * past + (1 - decay) * frame
        return past, past

    _, smooth = jax.lax.scan(step, frames[0], frames)
    return smooth
