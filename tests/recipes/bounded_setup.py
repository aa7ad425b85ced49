"""Small configurations, teachers and recipes of bounded, and painted faces for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_networks import LinearNetwork
from recipes_setup import SIZE

from emokd.configuration import defaults
from emokd.data.pipeline import train_batches
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import bounded
from emokd.recipes.common.task import Task


def make_teacher(classes, seed=1, heads=("expression", "valence_arousal")) -> TrainedModel:
    """A network with random weights, as if read from a file."""
    sizes = {"expression": len(classes), "valence_arousal": 2, "gaze": 3}
    named = {"expression": tuple(classes)} if "expression" in heads else {}
    spec = NetworkSpec(
        "basic_cnn", {"width": 2, "size": SIZE}, {h: sizes[h] for h in heads}, named, Preprocessing(SIZE)
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(seed)))
    return TrainedModel(spec, params, stats, origin=f"random {seed}")


def make_config(*names):
    config = bounded.default_config()
    config.batch_size = 8
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name in names:
        config.teachers[name] = defaults.teacher("basic_cnn", checkpoint="unused")
    config.phases.distill = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


def build(config, models, examples, counts=(), teachers=()):
    """The recipe as it is built, but for its student, which is linear, and its teachers where linear ones are given."""
    known = {"expression": counts} if counts else {}
    sizes = {"labelled": len(examples), "all": 3 * len(examples)}
    task = Task(examples.classes, tuple(examples.columns), sizes, config.batch_size, known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "create_student", lambda config, heads, *_: LinearNetwork("student", 4, heads))
        if teachers:
            patch.setattr(bounded, "create_teachers", lambda *_: teachers)
        return bounded.build(config, task, models)


def first_batch(examples, config):
    stream = train_batches(examples, batch_size=config.batch_size, seed=0, canvas=SIZE, fit="crop", num_threads=0)
    return jax.tree.map(jnp.asarray, next(stream))


def faces(examples):
    """The painted faces with the bounded recipe's two targets alone, half of them without valence and arousal."""
    affect = examples.columns["valence_arousal"].copy()
    affect[1::2] = np.nan
    columns = {"expression": examples.columns["expression"], "valence_arousal": affect}
    return dataclasses.replace(examples, columns=columns, classes={"expression": examples.classes["expression"]})
