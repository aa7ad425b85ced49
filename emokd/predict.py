"""Predicts emotions: of pictures, of the faces in them, of the rows of a table, or of the frames of a video.

python -m emokd.predict --model=runs/quickstart [--faces] [--output=FILE] FILES_FOLDERS_OR_ARCHIVES...
python -m emokd.predict --model=runs/mtpkdot --table=ROWS [--output=FILE]
python -m emokd.predict --model=runs/quickstart [--faces] --video=FILE --output=FOLDER [--smooth=SECONDS]
"""

import codecs
import contextlib
import io
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import rich.console
import rich.progress
from absl import flags

from emokd.configuration.limits import LARGEST_CANVAS
from emokd.data.face_crop import CROPS
from emokd.errors import InputError
from emokd.files import written_whole
from emokd.inference import records
from emokd.inference.faces import FaceCropper, YuNet
from emokd.inference.finding import LIST, find_pictures
from emokd.inference.loading import load
from emokd.inference.rows import read_rows
from emokd.inference.student import Student
from emokd.inference.video import predict_video
from emokd.jobs.command import run
from emokd.models.precision import PRECISION_NAMES

MODEL = flags.DEFINE_string("model", None, "A finished run's workdir, a model folder, or an export.", required=True)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Examples per step.", lower_bound=1)
CANVAS = flags.DEFINE_integer(
    "canvas", 0, "Side of the square that pictures are made into; 0: as in training.", 0, LARGEST_CANVAS
)
FIT = flags.DEFINE_enum("fit", "", ["", "crop", "squash", "pad"], "How they become squares; empty: as in training.")
PRECISION = flags.DEFINE_enum(
    "precision", "", ["", *PRECISION_NAMES], "What the network computes in; empty: as in training."
)
FACES = flags.DEFINE_bool("faces", False, "Find faces and answer for each; off: the pictures are crops already.")
FACE_CROP = flags.DEFINE_enum(
    "face_crop", "", ["", *CROPS], "How faces are cut out: around landmarks, or just the face; empty: as in training."
)
TABLE = flags.DEFINE_string("table", None, "Rows of modalities, .npz or .csv, instead of pictures.")
VIDEO = flags.DEFINE_string("video", None, "A video instead of pictures; with --faces, the largest face counts.")
OUTPUT = flags.DEFINE_string(
    "output", None, "The file to write, .jsonl or .csv, in place of the standard output; with --video a folder."
)
SMOOTH = flags.DEFINE_float("smooth", 0.0, "Time constant, seconds, of smoothing a video's answers; 0: none.", 0.0)


def main(argv: list[str]) -> None:
    """The command.

    Raises:
      InputError: flags contradict each other, a file is missing, or some pictures could not be read; the last is raised
        after the others' answers are written.
    """
    _check_flags(argv[1:])
    pictures = [] if VIDEO.value or TABLE.value else find_pictures(argv[1:], _listed(argv[1:]))
    student = load(
        MODEL.value,
        batch_size=BATCH_SIZE.value,
        canvas=CANVAS.value,
        fit=FIT.value,
        face_crop=FACE_CROP.value,
        precision=PRECISION.value,
    )
    if VIDEO.value:
        assert OUTPUT.value is not None  # `_check_flags`
        student.require_pictures()
        # No second look for small faces: the next frame comes soon.
        cropper = FaceCropper(YuNet(second_look=False), student.seen_as.face_crop) if FACES.value else None
        print(json.dumps(predict_video(student, VIDEO.value, OUTPUT.value, cropper=cropper, smooth=SMOOTH.value)))
    elif TABLE.value:
        _predict_rows(student, TABLE.value)
    else:
        _predict_pictures(student, pictures)


def _predict_rows(student: Student, table: str) -> None:
    rows = read_rows(table, student.modalities)
    answers = student(rows.arrays)
    with _writer(["id", *records.columns(student)] if _is_table() else None) as writer:
        for name, answer in zip(rows.ids, answers, strict=True):
            writer.write([{"id": name, **(answer.to_cells() if writer.is_table else answer.to_json())}])


def _predict_pictures(student: Student, pictures: list) -> None:
    student.require_pictures()
    unreadable = 0
    with _writer(_header(student) if _is_table() else None) as writer:
        looks = records.look_at(student, pictures, student.face_cropper if FACES.value else None)
        for found, look in _with_progress(looks, len(pictures)):
            unreadable += look.error is not None
            if writer.is_table:
                writer.write(records.rows_of_picture(found, look))
            else:
                writer.write([records.of_picture(found, look, faces=FACES.value)])
    if unreadable:
        raise InputError(f"{unreadable} of {len(pictures)} pictures could not be read; their lines say why.")


def _header(student: Student) -> list[str]:
    return ["file", *(records.PLACE if FACES.value else ()), *records.columns(student), "error"]


def _is_table() -> bool:
    return OUTPUT.value is not None and OUTPUT.value.lower().endswith(".csv")


@contextlib.contextmanager
def _writer(header: list[str] | None) -> Iterator[records.Writer]:
    """Opens a writer to the standard output, or to --output, which is written whole or not at all."""
    if not OUTPUT.value:
        yield records.Writer(sys.stdout, header)
        sys.stdout.flush()
        return
    with written_whole(pathlib.Path(OUTPUT.value)) as file:
        # File names need not be valid UTF-8.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        yield records.Writer(text, header)
        text.detach()


def _with_progress(looks: Iterator, total: int) -> Iterator:
    """Iterates over the looks with a progress bar, where a terminal can show it without mixing it with answers."""
    shown = sys.stderr.isatty() and (bool(OUTPUT.value) or not sys.stdout.isatty())
    console = rich.console.Console(stderr=True)
    return iter(rich.progress.track(looks, "Predicting", total=total, console=console, disable=not shown))


def _listed(names: list[str]) -> list[str]:
    """The names on the standard input, one per line, where `LIST` is among the names; they need not be valid UTF-8.

    Raises:
      InputError: it is text of two bytes a character, as some Windows programs write it, or has NUL between names.
    """
    if LIST not in names:
        return []
    text = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8)
    if b"\0" in text:
        kind = "characters of two bytes" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "NUL bytes"
        raise InputError(f"The list on the standard input has {kind}. Write it as UTF-8, a name a line.")
    return [os.fsdecode(line) for line in text.splitlines() if line]


def _check_flags(names: list[str]) -> None:
    given = [flag for flag, value in (("--video", VIDEO.value), ("--table", TABLE.value)) if value]
    if len(given) > 1 or given and names:
        other = given[1] if len(given) > 1 else f"pictures ({names[0]})"
        raise InputError(f"{given[0]} and {other} are given; give one of them at a time.")
    if VIDEO.value and not OUTPUT.value:
        raise InputError("--video needs a folder for what it writes: give --output=FOLDER.")
    if TABLE.value and FACES.value:
        raise InputError("--faces looks for faces in pictures and videos, not in a table; leave one of the two out.")
    if SMOOTH.value and not VIDEO.value:
        raise InputError("--smooth goes with --video: pictures have no order in time.")
    if OUTPUT.value and not VIDEO.value:
        _check_output(pathlib.Path(OUTPUT.value))


def _check_output(path: pathlib.Path) -> None:
    """Refuses an output file that cannot be written, before the prediction, which may take long."""
    if path.suffix.lower() not in records.SUFFIXES:
        raise InputError(f"--output={path}: give a file that ends in {' or '.join(records.SUFFIXES)}.")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise InputError(f"--output={path} cannot be written: give a file in a folder that exists.")


if __name__ == "__main__":
    run(main, takes_arguments=True)
