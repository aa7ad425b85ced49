"""Reads the frames of a video file one after another."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from emokd.data.files.listing import not_regular
from emokd.data.video.file import CutOffError, decode_whole, import_av, pixel_aspect, upright
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
        first, size, count = None, None, 0
        frames = decode_whole(self._container, self._stream)
        aspect = pixel_aspect(self._stream)
        while True:
            try:
                frame = next(frames, None)
            except (OSError, self._av.FFmpegError) as error:
                raise self._broken(count, error.strerror or str(error)) from error
            except CutOffError as error:
                raise self._broken(count, str(error)) from error
            if frame is None:
                break
            if frame.is_corrupt:
                raise self._broken(count, "it is corrupt")
            picture = upright(frame, aspect)
            size = size or picture.shape
            if picture.shape != size:
                raise self._broken(count, f"it is {picture.shape[1]} x {picture.shape[0]} pixels, unlike the first")
            time = count / self.rate if frame.time is None else float(frame.time)
            first = time if first is None else first
            yield time - first, picture
            count += 1

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _broken(self, frame: int, why: str) -> InputError:
        return InputError(
            f"{self._path}: frame {frame} cannot be read: {why}. Nothing was written; repair or cut the video."
        )
