"""SMKD jobs whose teachers are read from folders, as a run reads them."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from small_jobs import SIZE, paint

from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.data.pipeline import train_batches
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.weights import model_folder

CLASSES, STEPS = 8, 6


def make_teacher(
    seed: int, width: int, size: int = SIZE, normalisation=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
) -> TrainedModel:
    """A network with random weights whose BatchNorm statistics keep its features alive."""
    spec = NetworkSpec(
        "basic_cnn",
        {"width": width, "size": SIZE},
        {"pretrained": 5},
        preprocessing=Preprocessing(size, *normalisation),
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda s: (0.1 * s + rng.uniform(0.0, 0.1, s.shape)).astype(np.float32), stats)
    return TrainedModel(spec, params, stats, origin=f"random {seed}")


def save_teachers(folder: pathlib.Path, models: Mapping[str, TrainedModel]) -> dict[str, str]:
    for name, model in models.items():
        model_folder.save_model(folder / name, model.spec, model.params, model.stats, {"source": "test"})
    return {name: str(folder / name) for name in models}


def make_job_config(teachers: Mapping[str, str]) -> ml_collections.ConfigDict:
    config = paint(smkd.default_config(), steps=STEPS)
    config.devices = 1
    config.data.options.train = 21  # batches run across the ends of epochs
    config.checkpoint.min_seconds = 0.0
    config.select.which = "last"
    for name, folder in teachers.items():
        config.teachers[name] = defaults.teacher(checkpoint=folder)
    return config


def first_batch(examples: Examples, config: ml_collections.ConfigDict) -> dict[str, jax.Array]:
    stream = train_batches(
        examples, batch_size=config.batch_size, seed=0, canvas=config.data.canvas, fit="crop", num_threads=0
    )
    return jax.tree.map(jnp.asarray, next(stream))
