"""Reads the frames of a video file one after another."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from emokd.data.files.listing import not_regular
from emokd.data.video.file import import_av, upright
from emokd.errors import InputError


class VideoReader:
    """The frames of a video file, upright, with their times."""

    def __init__(self, path: pathlib.Path):
        """Opens the file.

        Raises:
          InputError: the package PyAV is missing, or this is no video file.
        """
        self._av = import_av()
        self._path = path
        try:
            what = not_regular(os.stat(path).st_mode)
            if what:  # opening a pipe, for one, would wait for its writer
                raise InputError(f"{path} cannot be opened as a video: it is {what}. Give a file.")
            self._container = self._av.open(str(path))
        except (OSError, self._av.FFmpegError) as error:
            raise InputError(
                f"{path} cannot be opened as a video: {error.strerror or error}. Correct the path or give another."
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{path} has no video in it. Give a file that has.")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)

    def __iter__(self) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
        """Yields (seconds after the first frame, RGB pixels).

        Raises:
          InputError: a frame cannot be decoded, or has another size than the first.
        """
        first, end, size, count = None, 0.0, None, 0
        frames = self._container.decode(self._stream)
        while True:
            try:
                frame = next(frames, None)
            except (OSError, self._av.FFmpegError) as error:
                raise self._broken(count, error.strerror or str(error)) from error
            if frame is None:
                break
            if frame.is_corrupt:
                raise self._broken(count, "it is corrupt")
            picture = upright(frame)
            size = size or picture.shape
            if picture.shape != size:
                raise self._broken(count, f"it is {picture.shape[1]} x {picture.shape[0]} pixels, unlike the first")
            time = count / self.rate if frame.time is None else float(frame.time)
            first = time if first is None else first
            yield time - first, picture
            end = time - first + (float(frame.duration * frame.time_base) if frame.duration else 1 / self.rate)
            count += 1
        # A truncated file ends without an error; the duration in its header shows that frames are missing.
        duration = float((self._stream.duration or 0) * self._stream.time_base)
        if count and end < 0.9 * duration:
            raise self._broken(count, f"the file ends after {end:.2f} of its {duration:.2f} seconds")

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _broken(self, frame: int, why: str) -> InputError:
        return InputError(
            f"{self._path}: frame {frame} cannot be read: {why}. Nothing was written; repair or cut the video."
        )
