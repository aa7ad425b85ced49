"""Answers for the frames of a video, while the video is being read."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from emokd.inference.answer import Answer, read_answers
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.signature import IMAGE
from emokd.inference.smoothing import Smoother
from emokd.inference.student import Student
from emokd.inference.video_reader import VideoReader


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
      time: seconds after the first frame.
      picture: upright RGB.
      answer: for its largest face, or, without face detection, for the whole frame; None where there is no face.
    """

    time: float
    picture: UInt8[np.ndarray, "H W 3"]
    answer: Answer | None


def answer_video(
    student: Student, video: str | os.PathLike, *, cropper: FaceCropper | None = None, smooth: float = 0.0
) -> Iterator[Frame]:
    """Yields every frame of a video file with the model's answer, as it is read; closes the file at the end.

    Args:
      student: the model.
      video: the file.
      cropper: finds faces; the largest of each frame is answered for. None: the whole frame is answered for.
      smooth: time constant in seconds of an exponential moving average of probabilities, valence and arousal; 0: none.

    Raises:
      InputError: the video cannot be read to its end, or the package PyAV is missing.
    """
    with contextlib.closing(VideoReader(pathlib.Path(video))) as reader:
        yield from answer_frames(student, reader, cropper=cropper, smooth=smooth)


def answer_frames(
    student: Student, reader: VideoReader, *, cropper: FaceCropper | None = None, smooth: float = 0.0
) -> Iterator[Frame]:
    """As `answer_video`, for an open file: reads and answers `student.batch_size` frames at a time."""
    smoother = Smoother(smooth) if smooth else None
    frames = iter(reader)
    while batch := list(itertools.islice(frames, student.batch_size)):
        found: dict[int, tuple[Face | None, np.ndarray]] = {}
        for i, (_, picture) in enumerate(batch):
            for look in [(None, picture)] if cropper is None else cropper.find(picture, limit=1):
                found[i] = look
        answers: dict[int, Answer] = {}
        if found:
            outputs = student.outputs({IMAGE: np.stack([student.to_canvas(crop) for _, crop in found.values()])})
            if smoother is not None:
                outputs = smoother(outputs, [batch[i][0] for i in found])
            for (i, (face, _)), answer in zip(found.items(), read_answers(student.signature, outputs), strict=True):
                answers[i] = dataclasses.replace(answer, face=face)
        for i, (time, picture) in enumerate(batch):
            yield Frame(time, picture, answers.get(i))
