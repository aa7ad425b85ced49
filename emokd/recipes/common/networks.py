"""The networks of a run, from their sections of the configuration."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from emokd.errors import InputError
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import PRECISIONS, Functional, NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.phase import Tree
from emokd.recipes.common.task import Task, choose


def create_spec(section: ml_collections.ConfigDict, heads: Mapping[str, int], task: Task) -> NetworkSpec:
    """The network of a configuration section with `backbone`, `options`, `size` (0: the backbone's own), `dropout`."""
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
    return dataclasses.replace(spec, preprocessing=preprocessing)


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


def adopt_backbone(params: Tree, stats: Tree, model: TrainedModel, spec: NetworkSpec) -> tuple[Tree, Tree]:
    """Fresh parameters with the backbone replaced by a trained model's; the heads stay fresh.

    Raises:
      InputError: the model is of another architecture or width.
    """
    if (model.spec.backbone, dict(model.spec.options)) != (spec.backbone, dict(spec.options)):
        raise InputError(
            f"config.student.init is a {model.spec.backbone} with options {dict(model.spec.options)} ({model.origin}), "
            f"but config.student asks for a {spec.backbone} with options {dict(spec.options)}."
        )
    adopted_stats = {**stats, "backbone": model.stats["backbone"]} if "backbone" in stats else stats
    return {**params, "backbone": model.params["backbone"]}, adopted_stats
