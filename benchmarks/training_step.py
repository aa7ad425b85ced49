"""Our side: the step of one phase of a recipe, compiled as training compiles it, on one batch and one device."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array
from side_by_side import on_accelerator

from emokd.benchmarking.batches import fake_batch
from emokd.benchmarking.split import Dissection
from emokd.configuration import config as configuration
from emokd.phase import Recipe
from emokd.recipes.common.task import Task
from emokd.training.programs import Leaves, PhaseStep, Programs
from emokd.training.sharding import create_mesh
from emokd.training.state import enter

CLASSES = tuple(f"class{i}" for i in range(8))
COLUMNS = {"expression": ((), np.int32), "id": ((), np.uint32), "view": ((), np.int32), "mask": ((), np.bool_)}


class TrainingStep:
    """A phase's step with a state of its own; each call takes one step.

    Attributes:
      state: before the first step.
      leaves: as the last step left them.
      metrics: of the last step.
      initial: (params, stats) before the first step, on the host.
    """

    def __init__(self, recipe: Recipe, config: ml_collections.ConfigDict, phase: str, batch: Mapping[str, Array]):
        self.recipe, self.config, self.batch = recipe, config, batch
        self.index = [p.name for p in recipe.phases].index(phase)
        self.programs = Programs(recipe, configuration.locked(config, {"devices": 1}), len(CLASSES))
        state = self.programs.create(jax.random.key(config.seed))
        # A copy: on CPU the host's view would be of memory that the step takes over.
        self.initial = jax.tree.map(np.array, (state.params, state.stats))
        self.state = jax.device_put(enter(state, self.index), self.programs.placement.state)
        self.constants = jax.device_put(recipe.constants, self.programs.placement.constants)
        self.metrics: dict[str, Array] = {}
        self.leaves: Leaves | None = None

    @functools.cached_property
    def step(self) -> PhaseStep:
        """The step, as training compiles it."""
        return self.programs.step(self.index, self.state, self.constants, self.batch)

    def __call__(self) -> Any:
        if self.leaves is None:
            self.leaves = self.step.flatten(jax.tree.map(jnp.copy, self.state))
        self.leaves, self.metrics = self.step(self.leaves, self.constants, self.batch)
        return self.leaves, self.metrics

    def dissect(self) -> Dissection:
        """The step, apart."""
        traced = self.programs.trace(self.index, self.state, self.constants, self.batch)
        return Dissection(traced, (*self.step.flatten(self.state), self.constants, self.batch))


def create_task(batch_size: int, inputs: Mapping[str, tuple[int, ...]] | None = None) -> Task:
    """A task of eight expressions, with examples enough for any schedule."""
    sizes = {name: 1000 * batch_size for name in ("labelled", "all")}
    return Task({"expression": CLASSES}, ("expression",), sizes, batch_size, inputs=inputs or {})


def random_batch(batch_size: int, **inputs: tuple[tuple[int, ...], Any]) -> dict[str, Array]:
    """A batch of labelled examples with these inputs, each a (shape of one example, dtype), on one device."""
    like = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for name, (shape, dtype) in {**COLUMNS, **inputs}.items()
    }
    return fake_batch(like, {"expression": CLASSES}, create_mesh(1))


def as_they_are(config: ml_collections.ConfigDict) -> None:
    """Pictures are seen whole and unchanged, so that a side that is given them rendered computes the same loss."""
    neutral = {"crop_area": (1.0, 1.0), "aspect": (1.0, 1.0)}
    neutral |= dict.fromkeys(("flip", "brightness", "contrast", "saturation", "hue", "erase"), 0.0)
    config.data.augment.update(neutral)


def as_compared(config: ml_collections.ConfigDict) -> None:
    """What the other sides run: Adam without weight decay and clipping; networks in bfloat16 on an accelerator."""
    config.optimizer.update({"name": "adam", "weight_decay": 0.0, "clip_norm": 0.0})
    if on_accelerator():
        config.precision = "bfloat16"


def seen(images: Array, spec: Any) -> np.ndarray:
    """Pictures uint8 [B, S, S, 3] as a network of that size sees them: float32, normalised."""
    return np.asarray(spec.preprocessing(images.astype(jnp.float32) / 255))
