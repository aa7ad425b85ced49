"""The networks of a run, from their sections of the configuration."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import PRECISIONS, Functional, NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes.common.task import Task, choose


def create_spec(
    section: ml_collections.ConfigDict, heads: Mapping[str, int], task: Task, *, quantized: bool = False
) -> NetworkSpec:
    """The network of a configuration section with `backbone`, `options`, `size` (0: the backbone's own), `dropout`.

    Args:
      section: of the configuration.
      heads: output size of each head.
      task: names the classes.
      quantized: whether it is to learn to compute in integers.
    """
    options = section.options.to_dict()
    spec = NetworkSpec(
        backbone=section.backbone,
        options=options,
        heads=dict(heads),
        classes={name: tuple(task.classes[name]) for name in heads if name in task.classes},
        dropout=section.get("dropout", 0.0),
    )
    preprocessing = functional(spec).module.backbone.preprocessing
    if section.get("size", 0):
        preprocessing = resized(preprocessing, section.size)
    return dataclasses.replace(spec, preprocessing=preprocessing, quantized=quantized)


def resized(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """The same normalisation for pictures of another side."""
    return dataclasses.replace(preprocessing, size=size)


def create_network(spec: NetworkSpec | MultimodalSpec, config: ml_collections.ConfigDict, name: str) -> Functional:
    """The functional form of a network of this run, with `config.precision` and `config.remat`, under its name there.

    Raises:
      InputError: the precision is unknown.
    """
    choose(PRECISIONS, config.precision, "config.precision")
    return functional(spec, precision=config.precision, remat=config.remat, name=name)
