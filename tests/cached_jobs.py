"""Small jobs with frozen teachers in model folders, whose answers a cache or a file can hold."""

import pathlib

import jax

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data.painter.state import EXPRESSIONS
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder

SIZE = 16
AUGMENT = {"crop_area": (0.35, 1.0), "flip": 0.5, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}


def save_teacher(folder: pathlib.Path, seed: int, classes=EXPRESSIONS[::-1], size=SIZE) -> str:
    """A random network in a model folder; its classes are in another order than the data's.

    `size` is an option on which no weight depends.
    """
    heads = {"expression": len(classes), "valence_arousal": 2}
    spec = NetworkSpec(
        "basic_cnn", {"width": 3, "size": size}, heads, {"expression": tuple(classes)}, Preprocessing(SIZE)
    )
    params, stats = functional(spec).init(jax.random.key(seed))
    model_folder.save_model(folder, spec, params, stats, {"source": "test"})
    return str(folder)


def make_config(recipe, teachers, **changes):
    config = recipe.default_config()
    config.batch_size = 8
    config.devices = 1
    config.data.source = "painter"
    config.data.options = {"size": SIZE, "train": 24, "validation": 9, "test": 11, "seed": 0}
    config.data.canvas = SIZE
    config.data.num_threads = 1
    config.data.views = 2
    config.data.augment.update(AUGMENT)
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name, checkpoint in teachers.items():
        config.teachers[name] = defaults.teacher(checkpoint=checkpoint)
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    config.evaluation = defaults.every(steps=2)
    config.log.every_steps = 1
    return configuration.locked(config, changes)


def no_training(file, name, runs):
    raise AssertionError("the teachers have weights")
