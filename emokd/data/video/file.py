"""Reads frames of a video file, by their numbers."""

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from emokd.data.decode import DecodeError, to_canvas
from emokd.errors import InputError


def file_frame_numbers(path: str) -> Int64[np.ndarray, " N"]:
    """The numbers of the frames of a video file, from 1; none where there is no such file.

    Raises:
      InputError: the package PyAV is missing, or the file is no video.
    """
    if not os.path.isfile(path):
        return np.zeros(0, np.int64)
    av = import_av()
    try:
        with av.open(path) as container:
            # A file without a count of its frames is decoded to its end.
            count = container.streams.video[0].frames or sum(1 for _ in container.decode(video=0))
    except (OSError, IndexError, av.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video: {error}. Restore the file.") from error
    return np.arange(1, count + 1, dtype=np.int64)


def read_file_frames(
    path: str, numbers: Sequence[int] | Int64[np.ndarray, " T"], size: int
) -> UInt8[np.ndarray, "T size size 3"]:
    """Decodes frames, numbered from 1 in ascending order, to upright squares: the short side becomes `size`.

    The square is cut out of the middle.

    Raises:
      DecodeError: the file is damaged, or ends before a frame.
    """
    wanted = [int(number) for number in numbers]
    frames: dict[int, np.ndarray] = {}
    av = import_av()
    try:
        with av.open(path) as container:
            for number, frame in enumerate(container.decode(video=0), 1):
                if number in wanted:
                    frames[number] = to_canvas(upright(frame), size)
                if number == wanted[-1]:
                    break
    except (OSError, IndexError, av.FFmpegError) as error:
        raise DecodeError(f"{path} cannot be read as a video: {error}.") from error
    lacking = [number for number in wanted if number not in frames]
    if lacking:
        raise DecodeError(f"{path} ends before frame {lacking[0]}.")
    return np.stack([frames[number] for number in wanted])


def upright(frame: Any) -> UInt8[np.ndarray, "H W 3"]:
    """The RGB pixels of a PyAV frame, rotated as a player would: phones store the rotation beside the frames."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def import_av() -> ModuleType:
    """The package PyAV.

    Raises:
      InputError: it is missing.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"Reading and writing videos needs the package PyAV ({error}). Install it: pip install emokd[video]."
        ) from error
    return av
