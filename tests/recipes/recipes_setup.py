"""Small SMKD jobs on painted faces: networks of a few thousand parameters, pictures of 16 pixels."""

import jax
import numpy as np

from emokd.configuration import defaults
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import smkd
from emokd.recipes.common.task import Task

SIZE = 16


def frozen_teacher(seed: int, width: int = 3) -> TrainedModel:
    """A network with random weights and BatchNorm statistics that keep its features alive, as if read from a file."""
    options = {"width": width, "size": SIZE}
    spec = NetworkSpec("basic_cnn", options, {"pretrained": 5}, preprocessing=Preprocessing(SIZE))
    params, stats = jax.device_get(functional(spec).init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda s: (0.1 * s + rng.uniform(0.0, 0.1, s.shape)).astype(np.float32), stats)
    return TrainedModel(spec, params, stats, origin=f"random {seed}")


def make_config():
    config = smkd.default_config()
    config.batch_size = 8
    config.data.source = "painter"
    config.data.options = {"size": SIZE, "train": 24, "validation": 8, "test": 9, "seed": 0}
    config.data.canvas = SIZE
    config.data.num_threads = 1
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name in ("one", "two"):
        config.teachers[name] = defaults.teacher("basic_cnn", checkpoint="unused", width=3)
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


def make_models() -> dict[str, TrainedModel]:
    return {"one": frozen_teacher(1), "two": frozen_teacher(2, width=2)}


def build(config, models, examples, extra: int = 0):
    task = Task(
        classes=examples.classes,
        columns=tuple(examples.columns),
        sizes={"labelled": len(examples), "all": len(examples) + extra},
        batch_size=config.batch_size,
    )
    return smkd.build(config, task, models)
