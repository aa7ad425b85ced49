"""Every recipe on one small batch with gaps, for tests of single steps: networks and programs that compile fast."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from random_state import fill, random_tree
from small_jobs import SIZE, paint

from emokd.configuration import defaults
from emokd.data import sources
from emokd.data.examples import Examples
from emokd.data.pipeline import train_batches
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.phase import Phase, Recipe
from emokd.recipes import find
from emokd.recipes.common.task import Task
from emokd.training.programs import PhaseStep, Programs
from emokd.training.sharding import put_batch
from emokd.training.state import State

ROWS = 16
TARGETS = ("expression", "valence_arousal")


def frozen_teacher(seed: int, heads: Mapping[str, int], classes: tuple[str, ...]) -> TrainedModel:
    """A network with random weights, as if read from a file."""
    names = {"expression": classes} if "expression" in heads else {}
    spec = NetworkSpec("basic_cnn", {"width": 2, "size": SIZE}, heads, names, Preprocessing(SIZE))
    params, stats = jax.eval_shape(functional(spec).init, jax.random.key(0))
    return TrainedModel(spec, random_tree(params, seed), random_tree(stats, seed), origin=f"random {seed}")


def faces(targets: tuple[str, ...]) -> Examples:
    """Painted faces: some have no expression, some lack valence and arousal, or arousal alone."""
    found = sources.load("painter", "", {"size": SIZE, "train": ROWS, "validation": 8, "test": 9, "seed": 0})
    columns = {name: found.columns[name].copy() for name in TARGETS}
    columns["expression"][[2, 9]] = -1
    columns["valence_arousal"][[3, 7, 8]] = np.nan
    columns["valence_arousal"][12, 1] = np.nan
    classes = {"expression": found.classes["expression"]}
    return dataclasses.replace(found, columns={name: columns[name] for name in targets}, classes=classes)


def tables() -> Examples:
    """Features of three modalities with a common cause; some rows are without heart, without skin, without label."""
    rng, labels = np.random.default_rng(0), np.arange(ROWS) % 3
    arrays = {
        f"features/{name}": (rng.normal(size=(ROWS, size)) + labels[:, None]).astype(np.float32)
        for name, size in (("eye", 5), ("skin", 4), ("heart", 3))
    }
    arrays["features/heart"][[1, 4]] = np.nan
    arrays["features/skin"][[2, 4]] = np.nan
    affect = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    columns = {"expression": np.where(np.arange(ROWS) == 5, -1, labels).astype(np.int32), "valence_arousal": affect}
    return Examples(
        name="tables",
        keys=[f"row{i}" for i in range(ROWS)],
        columns=columns,
        classes={"expression": ("no", "some", "much")},
        inputs={name: array.__getitem__ for name, array in arrays.items()},
        content=str,
    )


def _set_modalities(config: ml_collections.ConfigDict) -> None:
    for name, privileged in (("eye", False), ("skin", True), ("heart", True)):
        options = {"privileged": privileged, "widths": (7,), "norm": "batch"}
        config.modalities[name] = defaults.modality(f"features/{name}", "mlp", **options)
    config.width, config.adapter_width = 6, 5
    config.fusion.name = "concatenation"
    config.hallucination.options = {"encoder": (6, 3), "decoder": (6,)}
    config.structure.k = 4
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)


@dataclasses.dataclass(frozen=True)
class Small:
    """A recipe's programs, and what they take.

    Attributes:
      config: the configuration.
      recipe: the recipe.
      programs: its programs.
      constants: the frozen teachers, where they belong.
      batch: a batch with gaps and a row of padding.
    """

    config: ml_collections.ConfigDict
    recipe: Recipe
    programs: Programs
    constants: Any
    batch: Mapping[str, np.ndarray]

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.recipe.phases if phase.name == name)

    def state(self) -> State:
        """Random parameters, where they belong; the optimiser has no moments yet."""
        return jax.device_put(fill(self.programs.abstract), self.programs.placement.state)

    def step(self, phase: str, state: State) -> PhaseStep:
        """A phase's compiled step, as the loop has it compiled."""
        index = self.recipe.phases.index(self.phase(phase))
        return self.programs.step(index, state, self.constants, self.sharded())

    def sharded(self) -> dict[str, jax.Array]:
        return put_batch(self.batch, self.programs.mesh)


@functools.cache
def create(name: str, devices: int) -> Small:
    """The recipe of this name on so many devices; its targets are compared over the batch where it can do that."""
    config, task, models, data = ingredients(name, devices)
    classes = data.classes["expression"]
    recipe = find(name).build(config, task, models)
    programs = Programs(recipe, config, len(classes))
    constants = jax.device_put(programs.recipe.constants, programs.placement.constants)
    return Small(config, recipe, programs, constants, batch_of(data))


def batch_of(data: Examples) -> dict[str, np.ndarray]:
    """The one batch, with its row of padding."""
    batch = next(train_batches(data, batch_size=ROWS, seed=0, canvas=SIZE, fit="crop", num_threads=0))
    batch["mask"][11] = False
    return batch


def ingredients(
    name: str, devices: int = 1
) -> tuple[ml_collections.ConfigDict, Task, dict[str, TrainedModel], Examples]:
    """What a recipe is built of: its configuration, the task, the models from files, and the data."""
    module = find(name)
    config, models = module.default_config(), {}
    if name == "mtpkdot":
        _set_modalities(config)
        data = tables()
    else:
        paint(config, steps=2)
        data = faces(TARGETS[:1] if name == "smkd" else TARGETS)
    classes = data.classes["expression"]
    if name == "supervised":
        config.targets = TARGETS
    if name == "bounded":
        config.affect_loss = "emonet"  # squared errors and both correlations
    if name in ("smkd", "bounded"):
        heads = {"pretrained": 5} if name == "smkd" else {"expression": len(classes), "valence_arousal": 2}
        for seed, teacher in enumerate(("one", "two") if name == "smkd" else ("one",)):
            config.teachers[teacher] = defaults.teacher("basic_cnn", checkpoint="unused")
            models[teacher] = frozen_teacher(seed, heads, classes)
    # Adam's first step has the length of the learning rate whatever the gradient is.
    config.optimizer.name = "sgd"
    config.batch_size, config.devices = ROWS, devices
    for section in config.phases.values():
        section.learning_rate = 0.1
    task = Task(
        data.classes,
        tuple(data.columns),
        {"labelled": ROWS, "all": ROWS},
        ROWS,
        inputs={key: read(0).shape for key, read in data.inputs.items()} if name == "mtpkdot" else {},
        devices=devices,
    )
    return config, task, models, data
