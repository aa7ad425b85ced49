"""Reads frames of a video from numbered picture files in a folder."""

import os
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from emokd.data.decode import read_file, to_canvas

_NUMBERED = r"{prefix}(\d{{5,}})\.jpg"


def frame_numbers(folder: str, prefix: str = "") -> Int64[np.ndarray, " N"]:
    """The numbers of the frames `PREFIX%05d.jpg` of a folder, ascending; none where there is no such folder."""
    pattern = re.compile(_NUMBERED.format(prefix=re.escape(prefix)))
    try:
        with os.scandir(folder) as entries:
            matches = [pattern.fullmatch(entry.name) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        matches = []
    return np.array(sorted(int(match[1]) for match in matches if match), np.int64)


def frame_path(folder: str, number: int, prefix: str = "") -> str:
    """The file of a frame."""
    return os.path.join(folder, f"{prefix}{number:05d}.jpg")


def read_frames(
    folder: str, numbers: Sequence[int] | Int64[np.ndarray, " T"], size: int, prefix: str = ""
) -> UInt8[np.ndarray, "T size size 3"]:
    """Decodes frames to squares: the short side becomes `size`, the centre is cut out.

    A frame that is asked for several times in a row is decoded once.

    Raises:
      DecodeError: a frame is missing or damaged; the message names its file.
    """
    frames: list[np.ndarray] = []
    for i, number in enumerate(numbers):
        if i and number == numbers[i - 1]:
            frames.append(frames[-1])
        else:
            frames.append(to_canvas(read_file(frame_path(folder, int(number), prefix), size), size))
    return np.stack(frames)
