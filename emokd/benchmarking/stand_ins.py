"""What replaces weights and data that are not there: a step takes as long with untrained networks and made-up rows."""

import dataclasses
import importlib
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from emokd.configuration import config as configuration
from emokd.data import sources
from emokd.errors import InputError
from emokd.jobs import caching
from emokd.jobs.available_teachers import is_there
from emokd.jobs.datasets import Data, load_splits, load_unlabelled
from emokd.jobs.job import create_job
from emokd.jobs.models import TrainTeacher, of_fold
from emokd.models.network import NetworkSpec, functional
from emokd.training.loop import Job
from emokd.weights import importing, model_folder
from emokd.weights.places import find_file


def untrained_teachers(folder: pathlib.Path) -> TrainTeacher:
    """A trainer of teachers that trains nothing: it stores the teacher's network with fresh weights below `folder`.

    Neither a teacher's data, where their source describes them, nor its weights need be there.
    """

    def make(file: str, name: pathlib.Path, runs: Sequence = ()) -> pathlib.Path:
        del runs
        config, _ = stand_in_weights(configuration.load(file), folder / "weights" / name)
        recipe = create_job(config, make, data=stand_in_data(config)[0]).recipe
        params, stats = jax.device_get(recipe.extract(*jax.jit(recipe.init)(jax.random.key(0))))
        model_folder.save_model(folder / name, recipe.student_spec, params, stats, {"source": f"untrained, {file}"})
        return folder / name

    return make


def stand_in_data(config: ml_collections.ConfigDict) -> tuple[Data, list[str]]:
    """The data of a configuration, made up where the source can describe it, otherwise read.

    A training split that is smaller than the batch is repeated.

    Returns:
      (splits and unlabelled examples, a sentence for each set that is made up or repeated)

    Raises:
      InputError: an option is wrong, or a set that no source describes cannot be read.
    """
    rows = max(config.batch_size, 64)
    section, more = config.data, config.data.extra
    whole = sources.describe(section.source, section.options.to_dict(), rows)
    extra = sources.describe(more.source, more.options.to_dict(), rows) if more.source else None
    notes = [
        f"Made-up examples of the shapes of {name} stand for it."
        for name, made in ((section.source, whole), (more.source, extra))
        if made is not None
    ]
    if extra is None:
        extra = load_unlabelled(config)
    parts = load_splits(config) if whole is None else dict.fromkeys(("train", "validation", "test"), whole)
    train = parts["train"]
    if len(train) < config.batch_size:
        notes.append(f"{len(train):,} training examples are repeated to fill a batch of {config.batch_size:,}.")
        parts["train"] = train.select(np.resize(np.arange(len(train)), config.batch_size))
    return (parts, extra), notes


def stand_in_cache(job: Job) -> Job:
    """The job with made-up features of its frozen teachers in every batch, of the widths that a cache would have.

    Raises:
      InputError: no teacher of the job is frozen from the start, or `config.cache.dtype` is unknown.
    """
    features, asked = job.recipe.frozen_features, caching.asked(job)
    if features is None or not asked:
        raise InputError("No teacher of this configuration is frozen from the start; leave config.cache.dir empty.")
    widths, dtype = caching.widths_of(job, features), jnp.dtype(caching.check_dtype(job.config.cache.dtype))

    def attach(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(batch["id"])
        made = {f"features/{name}": np.zeros((rows, widths[name]), dtype) for name in asked}
        return {**job.attach(batch), **made}

    return dataclasses.replace(job, attach=attach)


def stand_in_weights(
    config: ml_collections.ConfigDict, folder: pathlib.Path
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The configuration with untrained networks in the place of files of weights that are not there.

    A student or an encoder begins with fresh weights instead. A teacher's heads are those of its architecture's files,
    with as many classes as they can have at most; where they have none of their own, one of a thousand.

    Args:
      config: the resolved configuration.
      folder: where the model folders are made.

    Returns:
      (the configuration, a sentence for each file that is stood in for)

    Raises:
      InputError: a teacher's file is not there, and nothing says of which architecture it is.
    """
    changes: dict[str, str] = {}
    notes = []
    begun = {"student.init": config.student.init} if "student" in config else {}
    begun |= {f"modalities.{name}.init": section.init for name, section in config.get("modalities", {}).items()}
    for key, path in begun.items():
        if path and not is_there(of_fold(path, config)):
            changes[key] = ""
            notes.append(f"{path} is not there: fresh weights stand for it.")
    for name, section in config.get("teachers", {}).items():
        path = of_fold(section.checkpoint or section.if_there, config)
        if path and not is_there(path):
            if section.backbone not in importing.FOREIGN:
                find_file(path, f"config.teachers.{name}.checkpoint")
            changes[f"teachers.{name}.checkpoint"] = str(_make_teacher(section, folder / name))
            notes.append(f"{path} is not there: an untrained {section.backbone} stands for it.")
    return configuration.locked(config, changes), notes


def _make_teacher(section: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    module = importlib.import_module(importing.FOREIGN[section.backbone])
    own = module.heads(section.backbone) if hasattr(module, "heads") else {importing.DEFAULT_HEAD: {1000: ()}}
    heads = {name: max(known, default=2 if name == "valence_arousal" else 1) for name, known in own.items()}
    classes = {name: own[name][size] for name, size in heads.items() if own[name].get(size)}
    spec = NetworkSpec(section.backbone, section.options.to_dict(), heads, classes)
    network = functional(spec)
    spec = NetworkSpec(spec.backbone, spec.options, heads, classes, network.module.backbone.preprocessing)
    params, stats = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), network.abstract)
    model_folder.save_model(folder, spec, params, stats, {"source": f"untrained {section.backbone}"})
    return folder
