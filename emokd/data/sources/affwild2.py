"""Aff-Wild2 (Kollias and Zafeiriou 2019) in the layout of the ABAW challenges: faces, sound, labels frame by frame."""

import dataclasses
import functools
import glob
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from emokd.data.described import constant, described
from emokd.data.examples import Examples
from emokd.data.options import choice, number, several, whole
from emokd.data.pictures import check_options
from emokd.data.tables.class_list import as_classes
from emokd.data.tables.table import is_number
from emokd.data.tables.text import read_text
from emokd.data.video.frames import frame_numbers, frame_path, read_frames
from emokd.data.video.sound import HOP, RATE, WINDOW, log_mel, mel_filters, read_sound, sound_length
from emokd.errors import InputError, excerpt
from emokd.labels import UNLABELLED

INPUTS = ("video", "audio")
TRACKS = {
    "valence_arousal": ("VA_Estimation_Challenge",),
    "expression": ("EXPR_Recognition_Challenge", "EXPR_Classification_Challenge"),
}
"""The folder of each task's labels; the expressions' was renamed between challenges."""
SPLITS = {"train": "Train_Set", "test": "Validation_Set"}
"""The challenges' test labels are not public, so papers score the validation videos."""

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
"""The classes of the challenges' expression labels since 2022; `load` reads those that the files name."""
OPTIONS = ("task", "inputs", "length", "stride", "dilation", "size", "seconds", "mels")

_NO_AFFECT = -5.0
_NO_EXPRESSION = -1
_PERSON = re.compile(r"_(left|right)$")


@dataclasses.dataclass(frozen=True)
class _Video:
    """An annotated video.

    Attributes:
      name: the name of its labels and frames; two people in one recording have two, `..._left` and `..._right`.
      split: train or test.
      labels: float32 [L, 2] or int32 [L], one row for each frame of the recording; NaN or UNLABELLED where none.
      frames: the numbers, from 1, of the frames that have a picture; frames without a face have none.
    """

    name: str
    split: str
    labels: np.ndarray
    frames: np.ndarray


def load(directory: str, options: Mapping) -> Examples:
    """Loads sub-sequences: inputs `video` uint8 [length, size, size, 3] and `audio` float32 [mels, frames].

    Tested on generated files only, not on the real data.
    - `annotations/VA_Estimation_Challenge/{Train_Set,Validation_Set}/VIDEO.txt`: a header, then `valence,arousal` for
      each frame, -5 where there is none; or `annotations/EXPR_Recognition_Challenge/...` (formerly
      `EXPR_Classification_Challenge`): a header with the names of the classes, then a class id for each frame, -1
      where there is none. Line i after the header is frame i.
    - `cropped_aligned/VIDEO/%05d.jpg`: the faces, from 00001; frames without a face are not there.
    - `audio/RECORDING.wav`: 16 kHz, mono, 16 bits; the recording of `video7_left` is `video7`.

    A sub-sequence ends at every `stride`-th frame and holds `length` frames, `dilation` apart, the last one being the
    frame whose label is its target. [ours] With a stride of 1, each labelled frame with a face is the target of one
    sub-sequence. A frame without a face is replaced by the one before it that has one, or, at the beginning of the
    video, by the first. [ours] Targets without a label or a face are left out and counted in the log.

    The sound is the log-mel spectrogram (see `emokd.data.video.sound.log_mel`) of `seconds` around the middle of the
    sub-sequence, silence beyond its ends. The frame rate is the number of labels, or of the last frame where that is
    larger, over the length of the sound, as recordings differ in it. [ours] A recording without a file
    has no sound: all NaN, counted in the log.

    Splits are prescribed, the validation videos being the test split; groups are recordings, so that the validation
    split is carved from train in whole recordings. Frames beyond the last label count as unlabelled, and are reported
    in the log.

    Args:
      directory: holds the three folders.
      options: `task`: `valence_arousal` (the default) or `expression`; `inputs` (both); `length` (8), `stride` (8) and
        `dilation` (4) in frames; `size` of a frame in pixels (112); `seconds` (1) and `mels` (64) of the sound.

    Raises:
      InputError: there are no labels, a label file is wrong, a labelled video has no folder of frames or a frame 0, a
        sound is of another format or cut off, or an option is wrong; the message names the file and the line.
    """
    check_options("affwild2", options, OPTIONS)
    task = choice("task", options.get("task") or "valence_arousal", tuple(TRACKS))
    inputs = several("inputs", options.get("inputs") or INPUTS, INPUTS)
    length, stride, dilation, size, mels = (
        whole(key, options.get(key, default))
        for key, default in (("length", 8), ("stride", 8), ("dilation", 4), ("size", 112), ("mels", 64))
    )
    seconds = number("seconds", options.get("seconds", 1.0), WINDOW / RATE)
    videos, classes = _read_videos(directory, task)
    ends = _ends(videos, stride)
    places = [(v, int(end)) for v, last_frames in enumerate(ends) for end in last_frames]
    if not places:
        raise InputError(
            f"affwild2: no frame in {directory} has both a label ({task}) and a face. "
            "Lower config.data.options.stride, or check the folders."
        )
    readers = {}
    if "video" in inputs:
        folders = [os.path.join(directory, "cropped_aligned", video.name) for video in videos]
        readers["video"] = functools.partial(_read_video, folders, videos, places, length, dilation, size)
    if "audio" in inputs:
        sounds = _find_sounds(os.path.join(directory, "audio"), videos)
        middle = dilation * (length - 1) / 2
        samples, filters = round(seconds * RATE), mel_filters(mels)
        readers["audio"] = functools.partial(_read_audio, sounds, places, middle, samples, filters)
    keys = [f"{videos[v].name}/{end + 1:05d}" for v, end in places]
    return Examples(
        name="affwild2",
        keys=keys,
        columns={
            task: np.concatenate([video.labels[last_frames] for video, last_frames in zip(videos, ends, strict=True)])
        },
        classes=classes,
        inputs=readers,
        # Copies are not searched: sub-sequences overlap anyway, and groups keep each recording in one split.
        content=keys.__getitem__,
        splits=np.array([videos[v].split for v, _ in places]),
        groups=np.array([_recording(videos[v].name) for v, _ in places]),
    )


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of `load`: black frames and silence."""
    check_options("affwild2", options, OPTIONS)
    task = choice("task", options.get("task") or "valence_arousal", tuple(TRACKS))
    inputs = several("inputs", options.get("inputs") or INPUTS, INPUTS)
    length, size, mels = (
        whole(key, options.get(key, default)) for key, default in (("length", 8), ("size", 112), ("mels", 64))
    )
    readers = {}
    if "video" in inputs:
        readers["video"] = constant((length, size, size, 3), np.uint8)
    if "audio" in inputs:
        samples = round(number("seconds", options.get("seconds", 1.0), WINDOW / RATE) * RATE)
        readers["audio"] = constant((mels, 1 + (samples - WINDOW) // HOP), np.float32)
    classes = {"expression": EXPRESSIONS} if task == "expression" else {}
    return described("affwild2", rows, classes, readers, valence_arousal=task == "valence_arousal")


def _recording(name: str) -> str:
    return _PERSON.sub("", name)


def _read_videos(directory: str, task: str) -> tuple[list[_Video], dict[str, tuple[str, ...]]]:
    track = _find_track(directory, task)
    videos: list[_Video] = []
    path_of: dict[str, str] = {}
    header: tuple[str, ...] = ()
    first = ""
    beyond: list[str] = []
    for split, folder in SPLITS.items():
        for path in sorted(glob.glob(os.path.join(glob.escape(track), folder, "*.txt"))):
            name = os.path.splitext(os.path.basename(path))[0]
            if name in path_of:
                raise InputError(f"{path}: the video is also in {path_of[name]}. Keep one of the two.")
            path_of[name] = path
            names, lines = _read_lines(path)
            if task == "expression":
                names = as_classes(names, f"{path}, line 1")
            elif names != ("valence", "arousal"):
                raise InputError(
                    f"{path}, line 1: the header is {','.join(names)}, not valence,arousal. Write the columns in this "
                    "order, or restore the file."
                )
            if task == "expression" and header not in ((), names):
                raise InputError(
                    f"{path}, line 1: the classes are {', '.join(names)}, but in {first} {', '.join(header)}."
                )
            header, first = header or names, first or path
            labels = _affect(path, lines) if task == "valence_arousal" else _expressions(path, lines, header)
            folder_of_frames = os.path.join(directory, "cropped_aligned", name)
            frames = frame_numbers(folder_of_frames)
            if len(frames) and frames[0] == 0:
                raise InputError(
                    f"{frame_path(folder_of_frames, 0)}: frames are counted from 00001, "
                    "whose label is on the line after the header. Number them anew, each by one higher."
                )
            if len(frames) and frames[-1] > len(labels):
                beyond.append(f"{name} ({len(labels)} labels, frames to {frames[-1]})")
            videos.append(_Video(name, split, labels, frames))
    if not videos:
        raise InputError(f"There are no labels {track}/{{{','.join(SPLITS.values())}}}/VIDEO.txt. Unpack them there.")
    bare = [video.name for video in videos if not len(video.frames)]
    if bare:
        folder = os.path.join(directory, "cropped_aligned")
        raise InputError(
            f"{len(bare)} labelled videos have no frames in {folder}: {excerpt(bare)}. "
            "Unpack them there, or remove their labels."
        )
    if beyond:
        logging.warning("affwild2: %d videos have frames beyond their labels: %s.", len(beyond), excerpt(beyond))
    return videos, {"expression": header} if task == "expression" else {}


def _find_track(directory: str, task: str) -> str:
    for folder in TRACKS[task]:
        track = os.path.join(directory, "annotations", folder)
        if os.path.isdir(track):
            return track
    raise InputError(
        f"{os.path.join(directory, 'annotations')} has no folder {' or '.join(TRACKS[task])}. Unpack the labels of the "
        "challenge there, or choose another config.data.options.task."
    )


def _read_lines(path: str) -> tuple[tuple[str, ...], list[str]]:
    """The names in the header of a label file, in lower case, and its other lines."""
    header, *lines = read_text(path).rstrip().split("\n")
    names = tuple(name.strip().lower() for name in header.split(","))
    if not lines or not all(re.match(r"[a-z]", name) for name in names):
        raise InputError(
            f"{path}: a header and a line for each frame are wanted; line 1 is {header!r}. Restore the file."
        )
    return names, lines


def _affect(path: str, lines: Sequence[str]) -> Float[np.ndarray, "L 2"]:
    labels = np.full((len(lines), 2), np.nan, np.float32)
    for i, line in enumerate(lines):
        cells = [cell.strip() for cell in line.split(",")]
        # `nan` goes on to the check of the range, which names it.
        if len(cells) != 2 or not all(is_number(cell) or cell.lower() == "nan" for cell in cells):
            raise InputError(f"{path}, line {i + 2}: {line!r} is not `valence,arousal`. Restore the file.")
        valence, arousal = map(float, cells)
        if _NO_AFFECT in (valence, arousal):
            continue
        if not (abs(valence) <= 1 and abs(arousal) <= 1):
            raise InputError(f"{path}, line {i + 2}: {line!r} lies outside [-1, 1] and is not -5. Restore the file.")
        labels[i] = valence, arousal
    return labels


def _expressions(path: str, lines: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    codes = {str(i): i for i in range(len(classes))} | {str(_NO_EXPRESSION): UNLABELLED}
    for i, line in enumerate(lines):
        if line.strip() not in codes:
            raise InputError(
                f"{path}, line {i + 2}: {line!r} is no class id from 0 to {len(classes) - 1}, nor -1. Restore the file."
            )
    return np.array([codes[line.strip()] for line in lines], np.int32)


def _ends(videos: Sequence[_Video], stride: int) -> list[np.ndarray]:
    """The last frame (from 0) of each sub-sequence of each video."""
    ends, unlabelled, faceless = [], 0, 0
    for video in videos:
        last_frames = np.arange(stride - 1, len(video.labels), stride)
        labels = video.labels[last_frames]
        labelled = labels != UNLABELLED if labels.ndim == 1 else np.isfinite(labels).all(1)
        face = np.isin(last_frames + 1, video.frames)
        unlabelled += int((~labelled).sum())
        faceless += int((labelled & ~face).sum())
        ends.append(last_frames[labelled & face])
    logging.info(
        "affwild2: %d sub-sequences of %d videos; %d have no label, %d no face in the last frame: left out.",
        sum(map(len, ends)),
        len(videos),
        unlabelled,
        faceless,
    )
    return ends


def _read_video(
    folders: Sequence[str],
    videos: Sequence[_Video],
    places: Sequence[tuple[int, int]],
    length: int,
    dilation: int,
    size: int,
    i: int,
) -> UInt8[np.ndarray, "length size size 3"]:
    v, end = places[i]
    wanted = end + 1 - dilation * np.arange(length - 1, -1, -1)
    before = np.searchsorted(videos[v].frames, wanted, side="right") - 1
    return read_frames(folders[v], videos[v].frames[np.maximum(before, 0)], size)


def _find_sounds(folder: str, videos: Sequence[_Video]) -> list[tuple[str, float] | None]:
    """The sound of each video and its samples per frame; None where there is none."""
    sounds: list[tuple[str, float] | None] = []
    silent = []
    for video in videos:
        path = os.path.join(folder, f"{_recording(video.name)}.wav")
        if os.path.isfile(path):
            # Frames beyond the last label are part of the recording.
            frames = max(len(video.labels), int(video.frames[-1]))
            sounds.append((path, sound_length(path) / frames))
        else:
            sounds.append(None)
            silent.append(video.name)
    if len(silent) == len(videos):
        raise InputError(
            f"No video has a sound in {folder}. Put RECORDING.wav there, or set config.data.options.inputs to "
            "('video',)."
        )
    if silent:
        logging.warning("affwild2: %d of %d videos have no sound: %s.", len(silent), len(videos), excerpt(silent))
    return sounds


def _read_audio(
    sounds: Sequence[tuple[str, float] | None],
    places: Sequence[tuple[int, int]],
    middle: float,
    samples: int,
    filters: np.ndarray,
    i: int,
) -> Float[np.ndarray, "M T"]:
    v, end = places[i]
    sound = sounds[v]
    if sound is None:
        return np.full((len(filters), 1 + (samples - WINDOW) // HOP), np.nan, np.float32)
    path, samples_per_frame = sound
    # Frame f is shown from f to f + 1 frame durations after the beginning: the middle of that time counts.
    centre = round((end - middle + 0.5) * samples_per_frame)
    return log_mel(read_sound(path, centre - samples // 2, samples), filters)
