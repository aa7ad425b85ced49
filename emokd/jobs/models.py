"""The networks that a run reads from files: the student to begin with, teachers, encoders, and files of answers."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import ml_collections
from absl import logging

from emokd.data.cache.answers import AnswersFile
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs import held_out
from emokd.jobs.datasets import load_splits
from emokd.jobs.held_out import HeldOut
from emokd.models.answers import AnswersSpec
from emokd.models.network import TrainedModel
from emokd.weights import importing, model_folder
from emokd.weights.places import find_file

TrainTeacher = Callable[[str, pathlib.Path, Sequence[HeldOut]], pathlib.Path]
"""(configuration file, teacher's name, what the runs that it is for are scored on) -> model folder."""


def load_models(
    config: ml_collections.ConfigDict, train_teacher: TrainTeacher, runs: Sequence[HeldOut] = ()
) -> dict[str, TrainedModel]:
    """The networks that the configuration takes from files: "student" and teachers by name.

    It warns of a teacher that has learned from what the `runs` are scored on, where the teacher's folder shows that.

    "{fold}" in a path stands for `config.data.split.fold`, for networks trained fold by fold.

    Raises:
      InputError: a file is missing or does not fit its architecture, or its classes are not the data's.
    """
    models = {}
    if "student" in config and config.student.init:
        models["student"] = load_model(of_fold(config.student.init, config), config.student, "config.student.init")
    for name in sorted(config.get("teachers", {})):
        section = config.teachers[name]
        path = of_fold(section.checkpoint, config)
        if not path and section.train:
            path = str(train_teacher(section.train, pathlib.Path(name), runs))
        if path:
            models[name] = load_model(path, section, f"config.teachers.{name}.checkpoint")
            for run in runs if section.checkpoint else ():
                held_out.warn_of_checkpoint(name, find_file(importing.split_key(path)[0], name), run, load_splits)
            logging.info("Teacher %s: %s", name, models[name].origin)
    for name in sorted(config.get("modalities", {})):
        section = config.modalities[name]
        if section.init:
            models[name] = load_model(of_fold(section.init, config), section, f"config.modalities.{name}.init")
    return models


def of_fold(path: str, config: ml_collections.ConfigDict) -> str:
    """A path of the configuration with "{fold}" in it replaced by `config.data.split.fold`."""
    return path.replace("{fold}", str(config.data.split.fold))


def load_answers(config: ml_collections.ConfigDict, sets: Sequence[Examples]) -> dict[str, AnswersFile]:
    """The files of answers that stand for teachers, by the teacher's name.

    Args:
      config: the run's configuration.
      sets: all examples of the run.

    Raises:
      InputError: a teacher has weights as well, or its file is missing, damaged, or lacks what this run asks.
    """
    files = {}
    for name in sorted(config.get("teachers", {})):
        section, key = config.teachers[name], f"config.teachers.{name}.answers"
        if not section.answers:
            continue
        both = [other for other in ("checkpoint", "train", "task") if section[other]]
        if both:
            raise InputError(f"{key} is given beside .{both[0]}; a teacher comes from one of them. Leave one empty.")
        files[name] = AnswersFile(find_file(of_fold(section.answers, config), key))
        logging.info("Teacher %s: answers of %s; whose weights gave them is not known.", name, files[name].origin)
        files[name].check(name, sets, config.data)
    return files


def answering(file: AnswersFile) -> TrainedModel:
    """The specification of a teacher of which there is only a file of answers, in the place of a trained network."""
    heads = {"expression": file.widths.get("logits"), "valence_arousal": file.widths.get("valence_arousal")}
    spec = AnswersSpec(
        features=file.widths.get("features", 0),
        heads={name: width for name, width in heads.items() if width},
        classes={"expression": file.classes} if file.classes else {},
    )
    return TrainedModel(spec, {}, {}, file.origin)


def load_model(path: str, section: ml_collections.ConfigDict, key: str) -> TrainedModel:
    """Reads a model folder, or a weights file of another framework for `section.backbone`.

    "FILE#KEY" is one of several sets of weights in a file (see `importing.import_file`). Paths that do not exist as
    they stand are looked for under $EMOKD_DATA.
    """
    place, which = importing.split_key(path)
    location = find_file(place, key)
    if location.is_dir():
        model = model_folder.require_pictures(model_folder.load_trained(location), key)
    else:
        model = importing.import_file(section.backbone, location, options=section.options.to_dict(), key=which)
    if section.size and section.size != model.spec.preprocessing.size:
        preprocessing = dataclasses.replace(model.spec.preprocessing, size=section.size)
        model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, preprocessing=preprocessing))
    return model
