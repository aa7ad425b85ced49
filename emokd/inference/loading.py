"""Loads stored models for use: model folders by JAX, exported files by ONNX Runtime."""

import os
import pathlib

from emokd.errors import InputError, nearest
from emokd.inference.onnx_student import is_export, load_export
from emokd.inference.student import Student

ENGINES = ("jax", "onnx")
_DESCRIPTION = "model.json"


def load(
    path: str | os.PathLike,
    *,
    engine: str = "",
    batch_size: int = 32,
    canvas: int = 0,
    fit: str = "",
    face_crop: str = "",
    precision: str = "",
) -> Student:
    """Loads a trained model for use.

        student = emokd.load("runs/quickstart")
        answer = student("face.jpg")
        print(answer.expression, answer.probabilities, answer.valence, answer.arousal)

    An option that is empty or 0 takes its value from the model's training, where the model records that, and else the
    default of `weights.model_folder.load_with_canvas`.

    Args:
      path: a model folder, such as a run's `student`; a finished run's folder; or an exported ONNX file or its folder,
        which needs no JAX.
      engine: what computes the outputs: "jax" for a model folder, "onnx" for an export; empty: the one for `path`.
      batch_size: the largest number of examples computed at once.
      canvas: side of the square canvas that pictures are made into, pixels.
      fit: how pictures become squares: "crop", "squash" or "pad".
      face_crop: how faces are cropped: "landmarks" or "box", see `faces.FaceCropper`.
      precision: a name in `models.precision.PRECISION_NAMES`; an export has the one that it was written in.

    Raises:
      InputError: there is no model at `path`, it is damaged, it is not for this engine, an option is unknown, or a
        package is missing.
    """
    if engine and engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}.{nearest(engine, ENGINES)} Known: {', '.join(ENGINES)}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more.")
    if is_export(pathlib.Path(path)):
        if engine == "jax":
            raise InputError(
                f"{path} is an export, which JAX does not run. Leave engine out, or name its model folder."
            )
        if precision:
            raise InputError(f"{path} is an export, which has its own precision. Leave precision={precision!r} out.")
        return load_export(pathlib.Path(path), batch_size=batch_size, canvas=canvas, fit=fit, face_crop=face_crop)
    folder = find_model(path)
    if engine == "onnx":
        raise InputError(
            f"{path} is no export. Make one, python -m emokd.export --model={folder}, and load the file that it names."
        )
    try:
        from emokd.inference.jax_student import load_folder
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is no export, and opening a model folder needs the packages that train ({error}). Install them: "
            "pip install emokd[train]. Or export the model where they are (python -m emokd.export), and load the file."
        ) from error
    return load_folder(folder, batch_size=batch_size, canvas=canvas, fit=fit, face_crop=face_crop, precision=precision)


def find_model(path: str | os.PathLike) -> pathlib.Path:
    """The model folder at a path: the path itself, or the student in the run's folder there.

    Raises:
      InputError: the path is a run without a student.
    """
    folder = pathlib.Path(path)
    if (folder / _DESCRIPTION).is_file():
        return folder
    if (folder / "student" / _DESCRIPTION).is_file():
        return folder / "student"
    if (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is a run that has no student yet: it is still under way, or was stopped. python -m emokd.train "
            f"with its configuration and --workdir={folder} takes it to its end, and then the student is there."
        )
    return folder  # reading it will say what is wrong with it
