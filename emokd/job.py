"""A training job from its configuration to its scores: data, models, recipe, loop, student."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable

import jax
import ml_collections
from absl import logging

from emokd import config as configuration
from emokd import recipes
from emokd.data import sources, splits
from emokd.data.examples import Examples
from emokd.errors import InputError, excerpt
from emokd.models.cost import describe
from emokd.models.network import TrainedModel
from emokd.recipes.common import Task
from emokd.training import loop
from emokd.training.loop import Job
from emokd.weights import importing, model_folder

# Keys that change how a run works, not what it computes: they may differ when it is continued.
OPERATIONAL = ("log.", "data.num_threads", "data.dir", "data.extra.dir", "data.in_memory", "devices", "checkpoint.")

TrainTeacher = Callable[[str, pathlib.Path], pathlib.Path]


def train(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Runs the job in `workdir`, continuing it if it has begun; returns the scores, also in `scores.json`.

    Raises:
      InputError: the input is wrong, or `workdir` holds a run of another configuration.
    """
    workdir = pathlib.Path(workdir)
    claim(workdir, config)
    if (workdir / "scores.json").exists():
        logging.info("%s is done already.", workdir)
        return json.loads((workdir / "scores.json").read_text())

    def train_teacher(file: str, name: pathlib.Path) -> pathlib.Path:
        logging.info("Training teacher %s with %s.", name, file)
        folder = workdir / "teachers" / name
        train(configuration.load(file), folder)
        return folder / "student"

    job = create_job(config, train_teacher)
    state, scores = loop.train(job, workdir)
    for name, entry in {"student": scores["student"], **scores["teachers"]}.items():
        entry |= describe(job.recipe.networks[name])
    params, stats = job.recipe.extract(*jax.device_get((state.params, state.stats)))
    if jax.process_index() == 0:
        provenance = {"config": configuration.to_json(config), "step": int(state.step), "split": scores["split"]}
        model_folder.save_model(workdir / "student", job.recipe.student_spec, params, stats, provenance)
        write_atomically(workdir / "scores.json", json.dumps(scores, indent=2))
    return scores


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Makes `workdir` this configuration's, or raises InputError naming the keys in which the run there differs."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    if not path.exists():
        if jax.process_index() == 0:
            write_atomically(path, configuration.to_json(config))
        return
    differing = [
        key
        for key in configuration.differing_keys(config, configuration.from_json(path.read_text()))
        if not key.startswith(OPERATIONAL)
    ]
    if differing:
        raise InputError(
            f"{workdir} holds a run of another configuration; these keys differ: {excerpt(differing)}. "
            f"Use another --workdir, or the configuration in {path}."
        )


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def load_splits(config: ml_collections.ConfigDict) -> dict[str, Examples]:
    """Reads the data set of `config.data` and splits it.

    Raises:
      InputError: the source is unknown, its files are wrong, or a split would be too small.
    """
    data = config.data
    examples = sources.load(data.source, data.dir, data.options)
    section = data.split
    parts = splits.split(
        examples,
        {name: section[name] for name in ("train", "validation", "test")},
        seed=section.seed,
        folds=section.folds,
        fold=section.fold,
        by_group=section.by_group,
        use_prescribed=section.use_prescribed,
    )
    return sources.finish(data.source, parts, data.options)


def create_job(config: ml_collections.ConfigDict, train_teacher: TrainTeacher) -> Job:
    """Everything that training needs.

    Args:
      config: the resolved configuration.
      train_teacher: (configuration file, teacher's name) -> model folder; trains a teacher that has no weights.
    """
    parts = load_splits(config)
    train = parts["train"]
    extra = None
    if config.data.extra.source:
        extra = sources.load(config.data.extra.source, config.data.extra.dir, config.data.extra.options)
    if config.batch_size > len(train):
        raise InputError(f"config.batch_size is {config.batch_size}, but the training split has {len(train)} examples.")
    task = Task(
        classes=train.classes,
        columns=tuple(train.columns),
        sizes={"labelled": len(train), "all": len(train) + (len(extra) if extra else 0)},
        batch_size=config.batch_size,
    )
    models = load_models(config, train_teacher)
    recipe = recipes.find(config.recipe).build(config, task, models)
    return Job(config, recipe, parts, extra, attach=lambda batch: batch)


def load_models(config: ml_collections.ConfigDict, train_teacher: TrainTeacher) -> dict[str, TrainedModel]:
    """The networks that the configuration takes from files: "student" and teachers by name.

    Raises:
      InputError: a file is missing or does not fit its architecture, or its classes are not the data's.
    """
    models = {}
    if config.student.init:
        models["student"] = load_model(config.student.init, config.student, "config.student.init")
    for name in sorted(config.get("teachers", {})):
        section = config.teachers[name]
        path = section.checkpoint
        if not path and section.train:
            path = str(train_teacher(section.train, pathlib.Path(name)))
        if path:
            models[name] = load_model(path, section, f"config.teachers.{name}.checkpoint")
            logging.info("Teacher %s: %s", name, models[name].origin)
    return models


def load_model(path: str, section: ml_collections.ConfigDict, key: str) -> TrainedModel:
    """Reads a model folder, or a weights file of another framework for `section.backbone`.

    Paths that do not exist as they stand are looked for under $EMOKD_DATA.
    """
    found = find_file(path, key)
    if found.is_dir():
        model = model_folder.load_trained(found)
    else:
        model = importing.import_file(section.backbone, found, options=section.options.to_dict())
    if section.size and section.size != model.spec.preprocessing.size:
        preprocessing = dataclasses.replace(model.spec.preprocessing, size=section.size)
        model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, preprocessing=preprocessing))
    return model


def find_file(path: str, key: str) -> pathlib.Path:
    """The file or folder at `path`, or at `path` under $EMOKD_DATA.

    Raises:
      InputError: it is in neither place; `key` says which setting asked for it.
    """
    places = [pathlib.Path(path)]
    if os.environ.get("EMOKD_DATA"):
        places.append(pathlib.Path(os.environ["EMOKD_DATA"]) / path)
    for place in places:
        if place.exists():
            return place
    raise InputError(f"{key}: there is no {' nor '.join(map(str, places))}. Correct the path, or set EMOKD_DATA.")
