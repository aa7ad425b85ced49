"""Loads stored models for use."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Mapping

from emokd.data import reference
from emokd.data.reference import Reference
from emokd.errors import InputError, nearest
from emokd.inference.engine import JaxEngine
from emokd.inference.modalities import Modalities
from emokd.inference.student import Student
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import TrainedModel
from emokd.weights import model_folder
from emokd.weights.description import REMEDY
from emokd.weights.fields import Fields
from emokd.weights.model_folder import SeenAs

ENGINES = ("jax",)


def load(
    path: str | os.PathLike,
    *,
    engine: str = "jax",
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

    An option that is empty or 0 takes its value from the model's training, where the folder records that, and else the
    default of `weights.model_folder.load_with_canvas`.

    Args:
      path: a model folder, such as a run's `student`, or a finished run's folder.
      engine: the engine that computes the outputs, one of `ENGINES`.
      batch_size: the largest number of examples computed at once.
      canvas: side of the square canvas that pictures are made into, pixels.
      fit: how pictures become squares: "crop", "squash" or "pad".
      face_crop: how faces are cropped: "landmarks" or "box", see `faces.FaceCropper`.
      precision: a name in `models.network.PRECISIONS`.

    Raises:
      InputError: there is no model at `path`, it is damaged, or an option is unknown.
    """
    if engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}.{nearest(engine, ENGINES)} Known: {', '.join(ENGINES)}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more.")
    folder = find_model(path)
    model, seen_as = model_folder.load_with_canvas(folder)
    seen_as = dataclasses.replace(
        seen_as,
        canvas=canvas or seen_as.canvas,
        fit=fit or seen_as.fit,
        face_crop=face_crop or seen_as.face_crop,
        precision=precision or seen_as.precision,
    )
    provenance = model_folder.provenance(folder)
    return create_student(
        model,
        seen_as,
        batch_size=batch_size,
        references=reference.from_json(provenance.get("references", {})),
        privileged=_privileged(provenance, str(folder / model_folder.DESCRIPTION)),
    )


def create_student(
    model: TrainedModel,
    seen_as: SeenAs,
    *,
    batch_size: int = 32,
    references: Mapping[str, Reference] | None = None,
    privileged: Collection[str] = (),
) -> Student:
    """Makes a Student of a model in memory, computed by JAX.

    Args:
      model: the network and its weights.
      seen_as: how pictures become squares, and the precision.
      batch_size: the largest number of examples computed at once.
      references: the centre and unit of each array in training, by input (`data.reference`).
      privileged: names of modalities, and of their inputs, that existed only in training.
    """
    modalities = None
    if isinstance(model.spec, MultimodalSpec):
        modalities = Modalities(model.spec.modalities, references or {}, privileged)
    computing = JaxEngine(model, batch_size=batch_size, precision=seen_as.precision, mirror=seen_as.mirror)
    return Student(model.spec, computing, seen_as, batch_size=batch_size, modalities=modalities)


def find_model(path: str | os.PathLike) -> pathlib.Path:
    """The model folder at a path: the path itself, or the student in the run's folder there.

    Raises:
      InputError: the path is a run without a student.
    """
    folder = pathlib.Path(path)
    if (folder / model_folder.DESCRIPTION).is_file():
        return folder
    if (folder / "student" / model_folder.DESCRIPTION).is_file():
        return folder / "student"
    if (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is a run that has no student yet: it is still under way, or was stopped. python -m emokd.train "
            f"with its configuration and --workdir={folder} takes it to its end, and then the student is there."
        )
    return folder  # reading it will say what is wrong with it


def _privileged(provenance: Mapping, source: str) -> set[str]:
    """The modalities, and their inputs, that the training had and the model does not take."""
    config = Fields(json.loads(provenance.get("config") or "{}"), source, "provenance.config", REMEDY)
    if "modalities" not in config:
        return set()
    modalities = config.inner("modalities")
    found = set()
    for name in modalities:
        section = modalities.inner(name)
        if "privileged" in section and section.flag("privileged"):
            found |= {name, section.text("input")}
    return found
