"""Writes a model's answers for every frame of a video: a table, and the video with the answers drawn on it."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from emokd.data.video.file import import_av
from emokd.errors import InputError
from emokd.files import written_whole
from emokd.inference import records
from emokd.inference.answer import Answer
from emokd.inference.faces import FaceCropper
from emokd.inference.stream import answer_frames
from emokd.inference.student import Student
from emokd.inference.video_reader import VideoReader

_CLOCK = 90_000  # ticks per second of the written video; usual frames last a whole number of them


def predict_video(
    student: Student,
    video: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    cropper: FaceCropper | None = None,
    smooth: float = 0.0,
) -> dict[str, Any]:
    """Writes `NAME.emotions.csv` and `NAME.emotions.mp4` for a video NAME.*, both whole or not at all.

    The table has one row per frame: `frame` (from 0), `time` (seconds after the first frame), the face's box in pixels
    and the detector's score, class and probabilities of each head, valence, arousal; cells are empty where there is no
    face. The written video has no sound.

    Args:
      student: the model.
      video: the file.
      folder: where the two files go; made if it does not exist.
      cropper: finds faces; the largest of each frame is answered for. None: the whole frame is answered for.
      smooth: time constant in seconds of an exponential moving average of probabilities, valence and arousal; 0: none.

    Returns:
      A summary: `video`, `frames`, `frames_answered`, `table`, `annotated`.

    Raises:
      InputError: the video cannot be read to its end, the package PyAV is missing, or nothing can be written.
    """
    video, folder = pathlib.Path(video), pathlib.Path(folder)
    names = [folder / f"{video.stem}.emotions{suffix}" for suffix in (".csv", ".mp4")]
    columns = ["frame", "time", *records.PLACE, *records.columns(student)]
    frames = answered = 0
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(contextlib.closing(VideoReader(video)))
        table, annotated = stack.enter_context(_whole(names))
        writer = stack.enter_context(contextlib.closing(VideoWriter(pathlib.Path(annotated.name), reader.rate)))
        text = io.TextIOWrapper(table, encoding="utf-8", newline="", write_through=True)
        stack.callback(text.detach)  # `_whole` closes the file
        rows = records.Writer(text, columns)
        for seen in answer_frames(student, reader, cropper=cropper, smooth=smooth):
            cells = {} if seen.answer is None else {**records.place(seen.answer.face), **seen.answer.to_cells()}
            rows.write([{"frame": frames, "time": round(seen.time, 6), **cells}])
            writer.write(annotate(seen.picture, seen.answer), seen.time)
            frames += 1
            answered += seen.answer is not None
        if not frames:
            raise InputError(f"{video} has no frame that can be decoded. Restore the file or give another.")
    if not answered:
        logging.warning("%s: no face was found in any of its %d frames.", video, frames)
    return {
        "video": str(video),
        "frames": frames,
        "frames_answered": answered,
        "table": str(names[0]),
        "annotated": str(names[1]),
    }


class VideoWriter:
    """Writes pictures of one size as MP4, H.264 where the installed FFmpeg has it."""

    def __init__(self, path: pathlib.Path, rate: float):
        """Opens the file.

        Args:
          path: the file.
          rate: nominal frames per second; `write` sets each frame's time.
        """
        self._av = import_av()
        self._container = self._av.open(str(path), "w", format="mp4")
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        self._last = -1

    def write(self, picture: UInt8[np.ndarray, "H W 3"], time: float) -> None:
        """Adds a frame at a time in seconds."""
        # Chroma is stored at half the resolution, which needs even sides.
        even = np.pad(picture, [(0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)], mode="edge")
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._last = max(round(time * _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes the frames that the encoder still holds and closes the file."""
        if self._last >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def annotate(picture: UInt8[np.ndarray, "H W 3"], answer: Answer | None) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the answer, and the face's box, on a copy of a picture; without an answer, returns the picture.

    Args:
      picture: RGB.
      answer: for a face, which is drawn at its box, or for the whole picture, which is drawn in the corner.
    """
    if answer is None:
        return picture
    face, record = answer.face, answer.to_json()
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(10, min(image.size) // 24)
    font = ImageFont.load_default(size)
    lines = [f"{v} {record[f'{k}_probabilities'][v]:.2f}" for k, v in record.items() if f"{k}_probabilities" in record]
    if "valence" in record:
        lines.append(f"V {record['valence']:+.2f}  A {record['arousal']:+.2f}")
    text = "\n".join(lines)
    left, top = 0.0, 0.0
    if face is not None:
        draw.rectangle(face.box, outline="yellow", width=max(2, size // 8))
        height = draw.multiline_textbbox((0, 0), text, font=font)[3] + size // 2
        # The text goes above the box where there is room, else inside it.
        left, top = max(0.0, face.box[0]), max(0.0, face.box[1])
        top = top - height if top >= height else top
    x0, y0, x1, y1 = draw.multiline_textbbox((left + size // 4, top + size // 4), text, font=font)
    draw.rectangle((x0 - size // 4, y0 - size // 4, x1 + size // 4, y1 + size // 4), fill="black")
    draw.multiline_text((left + size // 4, top + size // 4), text, fill="white", font=font)
    return np.asarray(image)


@contextlib.contextmanager
def _whole(paths: Sequence[pathlib.Path]) -> Iterator[list[BinaryIO]]:
    """Yields temporary files beside `paths` that replace them when the block ends, and are removed where it fails."""
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            yield [files.enter_context(written_whole(path)) for path in paths]
    except OSError as error:
        raise InputError(
            f"{paths[0].parent} cannot be written: {error.strerror or error}. Choose another place."
        ) from error
