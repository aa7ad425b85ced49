"""Reads frames of a video file, by their numbers."""

import os
from collections.abc import Iterator, Sequence
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
            stream = container.streams.video[0]
            # A file without a count of its frames is decoded to its end.
            count = stream.frames or sum(1 for _ in decode_whole(container, stream))
    except (OSError, IndexError, av.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video: {error}. Restore the file.") from error
    except CutOffError as error:
        raise InputError(f"{path} is cut off: {error}. Restore the file.") from error
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
            aspect = pixel_aspect(container.streams.video[0])
            for number, frame in enumerate(container.decode(video=0), 1):
                if number in wanted:
                    frames[number] = to_canvas(upright(frame, aspect), size)
                if number == wanted[-1]:
                    break
    except (OSError, IndexError, av.FFmpegError) as error:
        raise DecodeError(f"{path} cannot be read as a video: {error}.") from error
    lacking = [number for number in wanted if number not in frames]
    if lacking:
        raise DecodeError(f"{path} ends before frame {lacking[0]}.")
    return np.stack([frames[number] for number in wanted])


def decode_whole(container: Any, stream: Any) -> Iterator[Any]:
    """Decodes the frames of a video stream of an open PyAV container to the file's end.

    A truncated file ends without an error; the duration in its header shows that frames are missing. Matroska, WebM
    and FLV declare that of the whole file alone, which another stream may make longer than the pictures; the packets
    of all streams are read for that reason.

    Raises:
      CutOffError: the file ends more than two frames before nine tenths of the duration that its header declares.
      av.FFmpegError: a frame cannot be decoded.
    """
    first: float | None = None
    end = 0.0
    end_of_any = 0.0  # of all streams, and from time 0: some writers count the file's duration from there
    tick = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    count = 0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base:
            end_of_any = max(end_of_any, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        for frame in packet.decode():
            time = count * tick if frame.time is None else float(frame.time)
            first = time if first is None else first
            yield frame
            end = time + (float(frame.duration * frame.time_base) if frame.duration else tick)
            count += 1
    if first is None:
        return
    if stream.duration is not None:
        duration, reached = float(stream.duration * stream.time_base), end - first
    else:
        duration, reached = (container.duration or 0) / import_av().time_base, max(end, end_of_any)
    if reached < 0.9 * duration - 2 * tick:
        raise CutOffError(f"the file ends after {reached:.2f} of its {duration:.2f} seconds")


class CutOffError(Exception):
    """A video file ends before the end that its header declares."""


def pixel_aspect(stream: Any) -> float:
    """How many times as wide as high a player shows the stored pixels of a PyAV video stream; 1 where nothing is said.

    Anamorphic formats (DVD, DV, some cameras) store pictures squeezed. What differs from 1 by less than a hundredth is
    a writer's rounding and counts as 1; so does what is beyond a factor of 4, which no format has.
    """
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 and abs(aspect - 1) >= 0.01 else 1.0


def upright(frame: Any, aspect: float = 1.0) -> UInt8[np.ndarray, "H W 3"]:
    """The RGB pixels of a PyAV frame as a player would show them.

    Phones store the rotation beside the frames. Pixels that are not square (`aspect`, see `pixel_aspect`) become so by
    a resize of the width.
    """
    width = frame.width if aspect == 1 else round(frame.width * aspect)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))


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
