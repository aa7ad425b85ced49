"""BioVid Heat Pain (Walter et al. 2013), parts A and B: faces and physiology at rest and under four levels of pain."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, Int64, UInt8

from emokd.data.described import constant, described, table
from emokd.data.examples import Examples, Rows
from emokd.data.options import choice, number, several, whole
from emokd.data.pictures import check_options
from emokd.data.tables.table import has_plain_digits
from emokd.data.tables.text import read_lines
from emokd.data.video.file import file_frame_numbers, read_file_frames
from emokd.data.video.frames import frame_numbers, read_frames
from emokd.errors import InputError, excerpt
from emokd.names import normal_path

RATE = 512
"""Samples per second of the traces."""
ANNOTATIONS = "annotations.txt"
CHANNELS = ("gsr", "ecg", "emg_trapezius", "emg_corrugator", "emg_zygomaticus")
INPUTS = ("video", "physiology")
# The levels of pain of each task, and the labels that an annotation file may have for each.
LEVELS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "binary": {"BL1": (0,), "PA4": (1, 4)},
    "five": {"BL1": (0,), "PA1": (1,), "PA2": (2,), "PA3": (3,), "PA4": (4,)},
}

OPTIONS = ("levels", "inputs", "channels", "start", "stop", "frames", "segments", "size", "bad_traces", "annotations")

_CLIP = re.compile(r"(?P<subject>\d{6}_[mw]_\d+)-(?P<level>BL1|PA[1-4])-(?P<number>\d+)")
_TIME = "time"
_UNITS = (1.0, 1e3, 1e6)  # times in seconds, milliseconds or microseconds
_PREFIX = "img_"
_DIGESTED = 64  # side in pixels of the frame by which clips are compared


@dataclasses.dataclass(frozen=True)
class _Clip:
    """One line of the annotations: the clip's path below the folders, subject and level by its name, and its frames."""

    path: str
    subject: str
    level: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class _Store:
    """How the frames of clips are stored: below a folder, each clip as a folder of pictures or as a file.

    Attributes:
      root: the folder of all clips.
      suffix: the suffix of a clip's path.
      example: the path of a clip's first frame as a pattern, for messages.
      numbers: path -> the numbers of the clip's frames.
      read: (path, numbers, size) -> the frames with these numbers.
    """

    root: str
    suffix: str
    example: str
    numbers: Callable[[str], np.ndarray]
    read: Callable[[str, np.ndarray, int], np.ndarray]


_STORES = {
    "folders": _Store(
        "faces",
        "",
        f"CLASS/CLIP/{_PREFIX}00001.jpg",
        functools.partial(frame_numbers, prefix=_PREFIX),
        functools.partial(read_frames, prefix=_PREFIX),
    ),
    "files": _Store("videos", ".mp4", "CLASS/CLIP.mp4", file_frame_numbers, read_file_frames),
}


def load(directory: str, options: Mapping) -> Examples:
    """Loads clips: inputs `video` uint8 [n, size, size, 3] and `physiology` float32 [T, C]; groups: subjects.

    The layout is that of MT-PKDOT's preparation. Tested on generated files only, not on the real data.
    - `annotations.txt`: lines `clip first last label`, where clip is `CLASS/CLIP` or CLIP alone (its class is then the
      level in its name), such as `BL1/071309_w_21-BL1-081 1 75 0`, and first and last are numbers of frames.
    - `faces/CLASS/CLIP/img_%05d.jpg`, 75 faces of a clip; or, with `frames="files"`, `videos/CLASS/CLIP.mp4`, of which
      the centre square is taken, wherever the face is (needs the extra `video`). [ours]
    - `physio/CLASS/CLIP_bio.csv`, tabs between the columns time, gsr, ecg, emg_trapezius, emg_corrugator,
      emg_zygomaticus; 512 Hz, times in seconds, milliseconds or microseconds.

    The class is the level in the clip's name; a label that says something else is an error. Clips of levels that the
    task does not have are left out and counted in the log. Frames are the centres of `segments` equal parts of the
    clip, in training too (the release draws one inside each part). Traces are read when the set is loaded and kept.

    Args:
      directory: holds the annotations and both folders.
      options: `levels`: `binary` (BL1, PA4; the default) or `five`; `inputs` (both); `channels` (`emg_corrugator`);
        `start` and `stop` of the trace in seconds (2 and 5); `frames`: `folders` (the default) or `files`;
        `segments` (10); `size` of a frame in pixels (112);
        `bad_traces`: what to do with clips one of whose traces is flat or has missing values: `error` (the default)
        or `skip`, which leaves them out and counts them in the log; `annotations`: another file than
        `annotations.txt`.

    Raises:
      InputError: a file is missing or wrong, traces are not sampled at 512 Hz or end too early, an annotation
        disagrees with the clip's name or frames, or an option is wrong.
    """
    check_options("biovid", options, OPTIONS)
    levels = LEVELS[choice("levels", options.get("levels") or "binary", tuple(LEVELS))]
    inputs = several("inputs", options.get("inputs") or INPUTS, INPUTS)
    clips = _read_annotations(os.path.join(directory, options.get("annotations") or ANNOTATIONS), levels)
    readers: dict[str, Callable[[int], np.ndarray]] = {}
    content: Callable[[int], str]
    if "physiology" in inputs:
        channels = several("channels", options.get("channels") or ("emg_corrugator",), CHANNELS)
        clips, traces = _read_traces(os.path.join(directory, "physio"), clips, channels, options)
        readers["physiology"] = Rows(traces, names=tuple(channels))
        content = functools.partial(_trace_digest, traces)
    if "video" in inputs:
        store = _STORES[choice("frames", options.get("frames") or "folders", tuple(_STORES))]
        root, size = os.path.join(directory, store.root), whole("size", options.get("size", 112))
        places = [os.path.join(root, clip.path) + store.suffix for clip in clips]
        numbers = _choose_frames(store, root, places, clips, whole("segments", options.get("segments", 10)))
        readers["video"] = functools.partial(_read_video, store, places, numbers, size)
        if "physiology" not in inputs:
            content = functools.partial(_frame_digest, store, places, numbers)
    names = list(levels)
    return Examples(
        name="biovid",
        keys=[clip.path for clip in clips],
        columns={"expression": np.array([names.index(clip.level) for clip in clips], np.int32)},
        classes={"expression": tuple(names)},
        inputs=readers,
        content=content,
        groups=np.array([clip.subject for clip in clips]),
    )


def describe(options: Mapping, rows: int) -> Examples:
    """Made-up examples like those of `load`: black frames, and noise for traces."""
    check_options("biovid", options, OPTIONS)
    levels = LEVELS[choice("levels", options.get("levels") or "binary", tuple(LEVELS))]
    inputs = several("inputs", options.get("inputs") or INPUTS, INPUTS)
    readers: dict[str, Callable[[int], np.ndarray]] = {}
    if "physiology" in inputs:
        channels = several("channels", options.get("channels") or ("emg_corrugator",), CHANNELS)
        first, last = _window(options)
        readers["physiology"] = table(rows, (last - first, len(channels)), channels)
    if "video" in inputs:
        segments, size = whole("segments", options.get("segments", 10)), whole("size", options.get("size", 112))
        readers["video"] = constant((segments, size, size, 3), np.uint8)
    return described("biovid", rows, {"expression": tuple(levels)}, readers)


def _window(options: Mapping) -> tuple[int, int]:
    """The first sample of a trace that is wanted, and the one after the last."""
    start = number("start", options.get("start", 2.0), 0)
    stop = number("stop", options.get("stop", 5.0), start + 1 / RATE)
    return round(start * RATE), round(stop * RATE)


def _read_annotations(path: str, levels: Mapping[str, Sequence[int]]) -> list[_Clip]:
    try:
        lines = read_lines(path)
    except InputError as error:
        raise InputError(
            f"The annotations: {error} BioVid needs lines `clip first last label`; "
            "config.data.options.annotations names another file."
        ) from error
    clips: dict[str, _Clip] = {}
    lines_of: dict[str, int] = {}
    others = 0
    for place, line in enumerate(lines, 1):
        where = f"{path}, line {place}"
        if not line.strip():
            continue
        clip, label = _read_line(where, line.split())
        if clip.path in clips:
            raise InputError(f"{where}: {clip.path} is also on line {lines_of[clip.path]}. Keep one of the two.")
        if clip.level not in levels:
            others += 1
            continue
        if label not in levels[clip.level]:
            raise InputError(
                f"{where}: the label of {clip.path} is {label}, not "
                f"{' or '.join(map(str, levels[clip.level]))} for {clip.level}. Correct the line, or choose another "
                "config.data.options.levels."
            )
        clips[clip.path], lines_of[clip.path] = clip, place
    if not clips:
        raise InputError(f"{path} has no clip of the levels {', '.join(levels)}. Check the file.")
    if others:
        logging.info("biovid: %d clips of other levels than %s are left out.", others, ", ".join(levels))
    return list(clips.values())


def _read_line(where: str, cells: Sequence[str]) -> tuple[_Clip, int]:
    if len(cells) != 4 or not all(cell.isascii() and cell.isdecimal() for cell in cells[1:]):
        raise InputError(f"{where}: {' '.join(cells)!r} is not `clip first last label` with whole numbers. Correct it.")
    path = normal_path(cells[0]).strip("/")
    first, last, label = map(int, cells[1:])
    match = _CLIP.fullmatch(path.rsplit("/", 1)[-1])
    if match is None:
        raise InputError(f"{where}: {path!r} is not a clip's name, such as BL1/071309_w_21-BL1-081. Correct it.")
    if not 0 <= first <= last:
        raise InputError(f"{where}: frames {first} to {last} are no range. Give the first and the last frame.")
    path = path if "/" in path else f"{match['level']}/{path}"
    return _Clip(path, match["subject"], match["level"], first, last), label


def _read_traces(
    folder: str, clips: Sequence[_Clip], channels: Sequence[str], options: Mapping
) -> tuple[list[_Clip], Float[np.ndarray, "N T C"]]:
    """The clips with usable traces, and those traces in float64."""
    policy = choice("bad_traces", options.get("bad_traces") or "error", ("error", "skip"))
    window = _window(options)
    missing = [clip.path for clip in clips if not os.path.isfile(_trace_file(folder, clip))]
    if missing:
        raise InputError(
            f"{len(missing)} annotated clips have no file CLASS/CLIP_bio.csv in {folder}: {excerpt(missing)}. "
            "Restore the files or remove the lines."
        )
    good, traces, bad = [], [], []
    for clip in clips:
        trace = _read_trace(_trace_file(folder, clip), channels, window)
        if np.isfinite(trace).all() and (trace.max(0) > trace.min(0)).all():
            good.append(clip)
            traces.append(trace)
        else:
            bad.append(clip.path)
    if bad and (policy == "error" or not good):
        raise InputError(
            f"{len(bad)} of {len(clips)} clips have a flat trace or missing values in {', '.join(channels)}: "
            f"{excerpt(bad)}. Set config.data.options.bad_traces to 'skip' to leave them out."
        )
    if bad:
        logging.warning(
            "biovid: %d of %d clips have a flat trace or missing values and are left out: %s.",
            len(bad),
            len(clips),
            excerpt(bad),
        )
    return good, np.stack(traces)


def _trace_file(folder: str, clip: _Clip) -> str:
    return os.path.join(folder, f"{clip.path}_bio.csv")


def _read_trace(path: str, channels: Sequence[str], window: tuple[int, int]) -> Float[np.ndarray, "T C"]:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header, *lines = file.read().rstrip().splitlines() or [""]
    names = [name.strip() for name in header.split("\t")]
    lacking = [name for name in (_TIME, *channels) if name not in names]
    if lacking:
        raise InputError(
            f"{path}, line 1: there is no column {', '.join(lacking)}. It has {excerpt(names)}; the columns must be "
            "separated by tabs."
        )
    repeated = [name for name in (_TIME, *channels) if names.count(name) > 1]
    if repeated:
        raise InputError(f"{path}, line 1: column {repeated[0]!r} appears twice. Rename one of the two.")
    _check_rate(path, lines, names.index(_TIME))
    if len(lines) < window[1]:
        raise InputError(
            f"{path} ends after {len(lines) / RATE:.2f} s, but the trace is wanted until {window[1] / RATE:g} s. "
            "Set config.data.options.stop, or restore the file."
        )
    places = [names.index(name) for name in channels]
    values = [_numbers(path, line, lines[line], places) for line in range(*window)]
    return np.array(values, np.float64)


def _check_rate(path: str, lines: Sequence[str], place: int) -> None:
    """Checks the sampling rate by the mean step of the times, in the unit in which it comes closest to `RATE`."""
    if len(lines) < 2:
        raise InputError(f"{path} has {len(lines)} samples. Restore the file.")
    last = len(lines) - 1
    (begin,), (end,) = _numbers(path, 0, lines[0], [place]), _numbers(path, last, lines[last], [place])
    step = (end - begin) / last
    if not step > 0:
        raise InputError(f"{path}: the times run from {begin:g} to {end:g}. Restore the file.")
    rate = min((unit / step for unit in _UNITS), key=lambda rate: abs(np.log(rate / RATE)))
    if abs(rate / RATE - 1) > 0.01:
        raise InputError(
            f"{path}: the times advance by {step:g} from sample to sample, which is {rate:.4g} Hz at best (in seconds, "
            f"milliseconds or microseconds), not {RATE} Hz. Resample the traces to {RATE} Hz."
        )


def _numbers(path: str, line: int, text: str, places: Sequence[int]) -> list[float]:
    """Cells of a line of samples; empty ones are NaN."""
    cells = text.split("\t")
    try:
        wanted = [cells[place].strip() for place in places]
        if not all(map(has_plain_digits, wanted)):
            raise ValueError
        return [float(cell or "nan") for cell in wanted]
    except (ValueError, IndexError):
        raise InputError(f"{path}, line {line + 2}: {text!r} is no row of numbers. Restore the file.") from None


def _choose_frames(
    store: _Store, root: str, places: Sequence[str], clips: Sequence[_Clip], segments: int
) -> list[Int64[np.ndarray, " n"]]:
    """The frame at the centre of each segment, for each clip; every annotated frame must be there."""
    chosen, bare = [], []
    for place, clip in zip(places, clips, strict=True):
        there = store.numbers(place)
        if not len(there):
            bare.append(clip.path)
            continue
        count = clip.last - clip.first + 1
        lacking = np.setdiff1d(np.arange(clip.first, clip.last + 1), there)
        if len(lacking):
            raise InputError(
                f"{place} has {len(there)} frames, {there[0]} to {there[-1]}, but the annotations name "
                f"{clip.first} to {clip.last}; {len(lacking)} are not there: {excerpt(lacking)}. "
                "Correct the range or restore them."
            )
        if segments > count:
            raise InputError(
                f"{clip.path} has {count} frames, too few for config.data.options.segments = {segments}. Lower it."
            )
        chosen.append(clip.first + (np.arange(segments) * 2 + 1) * count // (2 * segments))
    if bare:
        raise InputError(
            f"{len(bare)} annotated clips have no frames {store.example} in {root}: {excerpt(bare)}. "
            "Restore them, remove the lines, or set config.data.options.inputs to ('physiology',)."
        )
    return chosen


def _read_video(
    store: _Store, places: Sequence[str], numbers: Sequence[np.ndarray], size: int, i: int
) -> UInt8[np.ndarray, "n S S 3"]:
    return store.read(places[i], numbers[i], size)


def _trace_digest(traces: np.ndarray, i: int) -> str:
    return hashlib.blake2b(traces[i].tobytes(), digest_size=16).hexdigest()


def _frame_digest(store: _Store, places: Sequence[str], numbers: Sequence[np.ndarray], i: int) -> str:
    """A digest of the first chosen frame, which is enough: a camera never takes the same picture twice."""
    frame = store.read(places[i], numbers[i][:1], _DIGESTED)
    return hashlib.blake2b(frame.tobytes(), digest_size=16).hexdigest()
