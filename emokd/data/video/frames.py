"""Reads frames of a video from numbered picture files in a folder."""

import os
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from emokd.data.decode import read_file, to_canvas
from emokd.errors import InputError, excerpt

_NUMBERED = r"{prefix}([0-9]{{5,}})\.((?i:jpe?g|png))"


def frame_numbers(folder: str, prefix: str = "") -> Int64[np.ndarray, " N"]:
    """The numbers of the frames `PREFIX%05d.jpg` of a folder, ascending; none where there is no such folder.

    Raises:
      InputError: a frame is there as `.JPG`, `.jpeg` or `.png` alone, which would not be read.
    """
    pattern = re.compile(_NUMBERED.format(prefix=re.escape(prefix)))
    try:
        with os.scandir(folder) as entries:
            matches = [match for entry in entries if (match := pattern.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        matches = []
    numbers = {int(match[1]) for match in matches if match[2] == "jpg"}
    others = sorted(match[0] for match in matches if int(match[1]) not in numbers)
    if others:
        raise InputError(
            f"{folder}: {len(others)} frames are not named {prefix}00001.jpg and so on: {excerpt(others, 3)}. Rename "
            "them, or write them as JPEG."
        )
    return np.array(sorted(numbers), np.int64)


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
