"""An exported model as a Student that ONNX Runtime computes; nothing here needs JAX."""

import hashlib
import json
import pathlib
from typing import Any

from emokd.data import reference
from emokd.data.reference import Reference
from emokd.errors import InputError, excerpt
from emokd.inference.modalities import Modalities
from emokd.inference.onnx_engine import Feed, OnnxEngine, Session
from emokd.inference.signature import AFFECT, Input, Signature
from emokd.inference.student import Student
from emokd.models.preprocessing import Preprocessing
from emokd.weights.fields import Fields
from emokd.weights.seal import SEAL, sealed
from emokd.weights.seen_as import CROPS, FITS, SeenAs

DESCRIPTION = "student.json"
SUFFIX = ".onnx"
FORMAT = 1
"""The version of `student.json`."""
_REMEDY = "Export the model again, or restore the folder from where it came."
_LARGEST = 1_000_000
_KINDS = ("picture", "video", "array")


def is_export(path: pathlib.Path) -> bool:
    """Whether this is an exported file, or a folder that one was exported to; a model is a folder without such."""
    return path.suffix.lower() == SUFFIX or (path / DESCRIPTION).is_file() or path.is_file()


def load_export(path: pathlib.Path, *, batch_size: int, canvas: int, fit: str, face_crop: str) -> Student:
    """Loads an exported model, see `loading.load`.

    Args:
      path: the file, or its folder.
      batch_size: the largest number of examples computed at once.
      canvas: see `loading.load`, as are the following.
      fit: how pictures become squares.
      face_crop: how faces are cropped.

    Raises:
      InputError: the file or its description is missing or damaged, or ONNX Runtime is not installed.
    """
    file = _file(path)
    description = _describe(file)
    square = description.inner("canvas")
    seen_as = SeenAs(
        canvas or square.whole("size", 0, _LARGEST),
        fit or square.text("fit", FITS),
        face_crop or square.text("face_crop", CROPS),
        description.inner("precision").text("exported"),
        square.flag("mirrored_too"),
    )
    inputs = description.inner("inputs")
    feeds = {name: _feed(inputs.inner(name)) for name in inputs}
    signature = Signature(
        {name: feed.wanted for name, feed in feeds.items()},
        _heads(description.inner("outputs")),
        description.flag("multimodal"),
        description.flag("attends_to_batch"),
    )
    references = {feed.wanted.reads: feed.reference for feed in feeds.values() if feed.reference is not None}
    modalities = None
    if signature.multimodal:
        modalities = Modalities(signature.inputs, references, description.texts("privileged"))
    engine = OnnxEngine(Session(file), feeds)
    return Student(signature, engine, seen_as, batch_size=batch_size, modalities=modalities)


def _file(path: pathlib.Path) -> pathlib.Path:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"There is no file {path}. Correct the path.")
        if path.suffix.lower() != SUFFIX:
            raise InputError(
                f"{path} is no {SUFFIX} file, and emokd opens no other export: they are for their own runtimes."
            )
        return path
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(files) != 1:
        found = excerpt(file.name for file in files) or "none"
        raise InputError(f"{path} should hold one {SUFFIX} file, and holds {found}. Name the file itself.")
    return files[0]


def _describe(file: pathlib.Path) -> Fields:
    """The description beside an exported file, which is checked to be this file's."""
    path = file.with_name(DESCRIPTION)
    if not path.is_file():
        raise InputError(
            f"{file} has no {DESCRIPTION} beside it, which says what the model takes and the names of its classes. "
            "Copy it from where the model was exported."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is not JSON: {error}. {_REMEDY}") from error
    description = Fields(content, str(path), remedy=_REMEDY)
    needed = {
        "format", "sha256", "inputs", "outputs", "canvas", "precision", "multimodal", "attends_to_batch", "privileged",
    }  # fmt: skip
    if missing := needed - set(description):
        raise InputError(f"{path} lacks {excerpt(sorted(missing))}. {_REMEDY}")
    if content["format"] != FORMAT:
        raise InputError(
            f"{path} has format {str(content['format'])[:20]}; this emokd reads format {FORMAT}. Use the version that "
            f"wrote it ({str(content.get('emokd'))[:20]}), or export the model again."
        )
    if SEAL in content and sealed(content)[SEAL] != content[SEAL]:
        raise InputError(
            f"{path} is not what was written with the export (its sha256 differs): names or sizes may be wrong. "
            f"{_REMEDY} If you changed it on purpose, remove its entry {SEAL}."
        )
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != description.text("sha256"):
            raise InputError(f"{file} is not the file that {DESCRIPTION} beside it describes (sha256). {_REMEDY}")
    return description


def _feed(described: Fields) -> Feed:
    kind: Any = described.text("kind", _KINDS)
    reads = described.text("reads")
    if kind == "array":
        shape = _shape(described)
        columns = described.texts("columns") if "columns" in described else ()
        columns = columns if len(columns) == shape[-1] else ()
        return Feed(Input(reads, shape, kind, columns), reference=_reference(described, reads))
    size, channels = described.whole("size", 1, _LARGEST), described.whole("channels", 1, 3)
    frames = (described.whole("frames", 1, _LARGEST),) if kind == "video" else ()
    wanted = Input(reads, (*frames, size, size, channels), kind)
    if described.text("dtype") == "uint8":
        return Feed(wanted)
    mean = described.numbers("mean", channels, -1e4, 1e4)
    std = described.numbers("std", channels, 1e-4, 1e4)
    return Feed(wanted, Preprocessing(size, mean, std, channels))


def _shape(described: Fields) -> tuple[int, ...]:
    shape = described["shape"]
    if not isinstance(shape, list) or not all(isinstance(side, int) and 0 < side <= _LARGEST for side in shape[1:]):
        raise InputError(f"An input of the export has the shape {str(shape)[:60]} in {DESCRIPTION}. {_REMEDY}")
    return tuple(shape[1:])


def _reference(described: Fields, reads: str) -> Reference | None:
    if "reference" not in described:
        return None
    return reference.from_json({reads: described["reference"]})[reads]


def _heads(outputs: Fields) -> dict[str, tuple[str, ...]]:
    return {name: () if name == AFFECT else outputs.inner(name).texts("classes") for name in outputs}
