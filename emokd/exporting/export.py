"""Exports a model folder to a file, which is checked before it is written."""

import json
import pathlib
from typing import Any

from absl import logging

from emokd.data import reference
from emokd.errors import InputError
from emokd.exporting import card, examples
from emokd.exporting.checking import check
from emokd.exporting.formats import find_format
from emokd.exporting.formats.format import Request
from emokd.exporting.student import Student
from emokd.files import write_whole
from emokd.inference.onnx_student import DESCRIPTION
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import in_floating_point
from emokd.weights import model_folder
from emokd.weights.seal import sealed
from emokd.weights.seen_as import SeenAs

CARD = "README.md"
INTEGERS = "int8"


def read_student(folder: pathlib.Path, *, preprocess: bool = False, precision: str = "float32") -> Student:
    """Reads a model folder as a student to export.

    A model that has learnt to compute in integers does so in the precision int8; in others it computes in floating
    point, without rounding anything.

    Raises:
      InputError: `folder` is no model folder, or is damaged.
    """
    model, provenance = model_folder.load_trained(folder), model_folder.provenance(folder)
    if isinstance(model.spec, MultimodalSpec):
        data = json.loads(provenance.get("config") or "{}").get("data", {})
        seen_as = SeenAs(data.get("canvas", 0), data.get("fit", "crop"), provenance.get("face_crop") or "landmarks")
    else:
        _, seen_as = model_folder.load_with_canvas(folder)
    references = reference.from_json(provenance.get("references", {}))
    if precision != INTEGERS and in_floating_point(model) is not model:
        logging.warning("The model has learnt to compute in int8; this export computes in %s.", precision)
        model = in_floating_point(model)
    return Student(model, seen_as, references, preprocess)


def export(
    folder: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    format: str = "onnx",
    precision: str = "float32",
    preprocess: bool = False,
    pictures: str = "",
    timed: bool = True,
    accept: bool = False,
) -> dict[str, Any]:
    """Exports a model, with `student.json` and `README.md` beside it; returns the content of student.json.

    The file is run in its own runtime and compared with the network before anything is written.

    Args:
      folder: a model folder, such as a run's `student`.
      output: the file to write; its folder is made if it does not exist.
      format: one of `formats.FORMATS`.
      precision: one of the format's.
      preprocess: whether the file takes pictures of any size, uint8 [B, H, W, 3], and prepares them itself.
      pictures: a folder of pictures to compare on; empty: the run's validation split, or random values.
      timed: whether to time batches of 1 and of 32.
      accept: whether an integer network is written that keeps the first class of fewer examples than is wanted.

    Raises:
      InputError: the format, or the precision in it, is unknown, the output's folder has a README.md that is not an
        export's, a package is missing, `folder` holds no model, the network has an operation that cannot be exported,
        or the exported model's outputs differ from the network's.
    """
    folder, output = pathlib.Path(folder), pathlib.Path(output)
    chosen = find_format(format)
    if output.is_dir():
        raise InputError(f"--output={output} is a folder. Name a file, such as {output / chosen.file}.")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"--output={output} cannot be written: {above} is a file. Name another place.")
    chosen.check_request(precision, output, preprocess)
    if output.with_name(CARD).exists() and not output.with_name(DESCRIPTION).exists():
        raise InputError(
            f"{output.with_name(CARD)} is there and no export's: the model card would take its place. Let --output "
            "name a file in a folder of its own."
        )
    student = read_student(folder, preprocess=preprocess, precision=precision)
    if student.seen_as.precision != "float32" and precision == "float32":
        logging.warning("The model was trained in %s; the export computes in float32.", student.seen_as.precision)
    request = Request(student, precision, output.suffix, lambda: examples.calibration(student, folder))
    written = chosen.write(request)
    found = check(
        student,
        chosen.open(student, written.content, output.suffix),
        examples.choose(student, folder, pictures),
        format=chosen,
        precision=precision,
        accept=accept,
        sizes=chosen.batches if timed else (),
    )
    description = card.describe(student, folder, found, written, chosen, precision)
    description = sealed(json.loads(json.dumps(description)))
    output.parent.mkdir(parents=True, exist_ok=True)
    # The model is written last, so that its description exists wherever the model does.
    write_whole(output.with_name(DESCRIPTION), json.dumps(description, indent=2) + "\n")
    write_whole(output.with_name(CARD), card.readme(description, output.name))
    write_whole(output, written.content)
    return description
