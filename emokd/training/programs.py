"""What a recipe compiles to: a program per phase and some more; runs that differ in seed and data alone share them."""

import functools
from typing import Any

import jax
import ml_collections

from emokd.phase import Batch, Recipe, Tree
from emokd.training import evaluation
from emokd.training.placement import create_placement, gathering
from emokd.training.sharding import batch_sharding, create_mesh, replicated
from emokd.training.state import State, create_state
from emokd.training.step import create_train_step, parameter_labels


class Programs:
    """A recipe's compiled programs on its mesh. Nothing is compiled before it is asked for.

    Attributes:
      recipe: the recipe, gathering what is split.
      mesh: the devices.
      placement: where state and constants live.
      create: key -> the state at step 0, born where it belongs.
      predict: (params, stats, constants, batch) -> what is scored.
      observe: (params, stats, constants, batch) -> what the report draws, or None.
    """

    def __init__(self, recipe: Recipe, config: ml_collections.ConfigDict, classes: int):
        """Takes of the configuration what programs depend on: devices, optimiser.

        Args:
          recipe: the recipe.
          config: the run's configuration; its seed is not among what is taken.
          classes: how many expressions there are.
        """
        self.mesh = create_mesh(config.devices, **config.mesh)
        self.placement = create_placement(recipe, config, self.mesh, classes)
        self.recipe = recipe = gathering(recipe, self.placement)
        everywhere = replicated(self.mesh)
        create = functools.partial(create_state, recipe, config, classes)
        self.create = jax.jit(create, out_shardings=self.placement.state)
        heads = recipe.networks["student"].heads if recipe.networks else ()
        self.predict = evaluation.create_predict(recipe.predict, heads, self.mesh)
        self.observe = jax.jit(recipe.observe, out_shardings=everywhere) if recipe.observe else None
        self._train_step = jax.jit(
            create_train_step(recipe, config, parameter_labels(recipe)),
            static_argnames="phase",
            donate_argnames="state",
            out_shardings=(self.placement.state, everywhere),
        )
        self._steps: dict[Any, Any] = {}

    @functools.cached_property
    def abstract(self) -> State:
        """Shapes and dtypes of the state."""
        return jax.eval_shape(self.create, jax.random.key(0))

    def step(self, phase: int, state: State, constants: Tree, batch: Batch) -> jax.stages.Compiled:
        """The compiled step of a phase, for batches like this one."""
        sharding = batch_sharding(self.mesh)
        abstract = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=sharding) for k, v in batch.items()}
        key = (phase, *sorted((name, x.shape, str(x.dtype)) for name, x in abstract.items()))
        if key not in self._steps:
            with jax.set_mesh(self.mesh):  # so that an objective may ask for arrays gathered over it
                self._steps[key] = self._train_step.lower(state, constants, abstract, phase=phase).compile()
        return self._steps[key]
