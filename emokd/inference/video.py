"""A model's answers for every frame of a video: a table, and the video with the answers drawn on it."""

import contextlib
import csv
import functools
import itertools
import math
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from emokd.data.files.listing import not_regular
from emokd.data.video.file import import_av, upright
from emokd.errors import InputError
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.predictor import Predictor
from emokd.inference.smoothing import smooth_over_time

_POSITION = ("frame", "time", "left", "top", "right", "bottom", "score")
_CLOCK = 90_000  # ticks a second of the written video: the usual one, in which all frame rates are whole numbers


def predict_video(
    predictor: Predictor,
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
      predictor: the model.
      video: the file.
      folder: where; made if it does not exist.
      cropper: finds faces; of each frame the largest counts. None: the whole frame is the picture, as for crops.
      smooth: time constant in seconds of an exponential moving average of probabilities, valence and arousal; 0: none.

    Returns:
      What was done: `video`, `frames`, `frames_answered`, `table`, `annotated`.

    Raises:
      InputError: the video cannot be read to its end, the package PyAV is missing, or nothing can be written.
    """
    video, folder = pathlib.Path(video), pathlib.Path(folder)
    names = [folder / f"{video.stem}.emotions{suffix}" for suffix in (".csv", ".mp4")]
    blank = predictor.outputs([np.zeros((predictor.canvas, predictor.canvas, 3), np.uint8)])
    columns = [*_POSITION, *_cells(predictor.describe(_row(blank, 0)))]
    frames = answered = 0
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(contextlib.closing(VideoReader(video)))
        table, annotated = stack.enter_context(_whole(names))
        smoother = Smoother(smooth, reader.rate, predictor.batch_size) if smooth else None
        writer = stack.enter_context(contextlib.closing(VideoWriter(annotated, reader.rate)))
        rows = csv.DictWriter(
            stack.enter_context(table.open("w", newline="", encoding="utf-8")), columns, lineterminator="\n"
        )
        rows.writeheader()
        for batch in _batches(reader, predictor.batch_size):
            for (time, picture), (face, record) in zip(
                batch, _answer(predictor, cropper, smoother, batch), strict=True
            ):
                rows.writerow({"frame": frames, "time": round(time, 6), **_place(face), **_cells(record)})
                writer.write(annotate(picture, face, record), time)
                frames += 1
                answered += bool(record)
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


def _answer(
    predictor: Predictor,
    cropper: FaceCropper | None,
    smoother: "Smoother | None",
    batch: Sequence[tuple[float, np.ndarray]],
) -> list[tuple[Face | None, dict[str, Any]]]:
    """The largest face and the answers for each (time, picture); both empty where a face was looked for in vain."""
    found: list[tuple[Face | None, np.ndarray] | None] = []
    for _, picture in batch:
        if cropper is None:
            found.append((None, picture))
        else:
            found.append(next(iter(cropper.find(picture, limit=1)), None))
    with_answer = [i for i, seen in enumerate(found) if seen is not None]
    results: list[tuple[Face | None, dict[str, Any]]] = [(None, {}) for _ in batch]
    if with_answer:
        outputs = predictor.outputs([predictor.to_canvas(found[i][1]) for i in with_answer])
        if smoother is not None:
            outputs = smoother(outputs, [batch[i][0] for i in with_answer])
        for row, i in enumerate(with_answer):
            results[i] = (found[i][0], predictor.describe(_row(outputs, row)))
    return results


class Smoother:
    """Exponential moving average over the frames that have an answer, batch after batch. [ours]

    A frame keeps exp(-1 / (seconds x rate)) of the past. After a gap longer than the time constant it begins anew: the
    next face may be somebody else's.
    """

    def __init__(self, seconds: float, rate: float, length: int):
        """Sets the share of the past that a frame keeps.

        Args:
          seconds: the time constant.
          rate: frames per second.
          length: the most frames of one call.

        Raises:
          InputError: the time constant is not positive and finite.
        """
        if not (seconds > 0 and math.isfinite(seconds)):
            raise InputError(f"The time constant of smoothing must be a positive number of seconds, not {seconds}.")
        self._seconds, self._length = seconds, length
        self._average = jax.jit(functools.partial(smooth_over_time, decay=math.exp(-1 / (seconds * rate))))
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
        # The past goes in front: an average that begins with it goes on from it. Behind, padding to one length.
        padding = np.repeat(values[-1:], self._length - len(values), axis=0)
        smooth = np.asarray(self._average(jnp.asarray(np.concatenate([self._past, values, padding]))))
        smooth = smooth[1 : len(values) + 1]
        self._past = smooth[-1:]
        return smooth


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
            if what:  # a pipe would be waited for
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
        # A file that was cut off ends as if it were whole; what it says of its length gives it away.
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


class VideoWriter:
    """Writes pictures of one size as MP4, H.264 where the installed FFmpeg has it."""

    def __init__(self, path: pathlib.Path, rate: float):
        """Opens the file.

        Args:
          path: the file.
          rate: frames per second, nominally; every frame has its own time.
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
        # Colour is stored at half the resolution, which needs even sides.
        even = np.pad(picture, [(0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)], mode="edge")
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._last = max(round(time * _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if self._last >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def annotate(picture: UInt8[np.ndarray, "H W 3"], face: Face | None, record: Mapping[str, Any]) -> np.ndarray:
    """A copy of a picture with the face's box and the answers; without answers, the picture as it is.

    Args:
      picture: RGB.
      face: whose box is drawn; None: the answers stand in the corner.
      record: from `Predictor.describe`.
    """
    if not record:
        return picture
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
        # Above the box where there is room, else inside it.
        left, top = max(0.0, face.box[0]), max(0.0, face.box[1])
        top = top - height if top >= height else top
    x0, y0, x1, y1 = draw.multiline_textbbox((left + size // 4, top + size // 4), text, font=font)
    draw.rectangle((x0 - size // 4, y0 - size // 4, x1 + size // 4, y1 + size // 4), fill="black")
    draw.multiline_text((left + size // 4, top + size // 4), text, fill="white", font=font)
    return np.asarray(image)


def _place(face: Face | None) -> dict[str, float]:
    if face is None:
        return {}
    return {**dict(zip(_POSITION[2:6], (round(v, 1) for v in face.box), strict=True)), "score": round(face.score, 4)}


def _cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a column of its own for each probability: `expression_probabilities.fear` is `expression_fear`."""
    cells: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            cells |= {f"{name.removesuffix('_probabilities')}_{c}": p for c, p in value.items()}
        else:
            cells[name] = value
    return cells


def _row(outputs: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: values[row] for name, values in outputs.items()}


def _batches(frames: Iterable, size: int) -> Iterator[list]:
    frames = iter(frames)
    while batch := list(itertools.islice(frames, size)):
        yield batch


@contextlib.contextmanager
def _whole(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """Gives temporary files beside `paths`, which take their places when the block ends and disappear if it fails."""
    temporary = [path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}") for path in paths]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for new, path in zip(temporary, paths, strict=True):
            new.replace(path)
    except OSError as error:
        raise InputError(
            f"{paths[0].parent} cannot be written: {error.strerror or error}. Choose another place."
        ) from error
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink()
