"""What a recipe compiles to: a program per phase and some more; runs that differ in seed and data alone share them."""

import functools
import gc
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh
from jaxtyping import Array

from emokd.phase import Batch, Recipe, Tree
from emokd.training import divergence, evaluation
from emokd.training.placement import create_placement, gathering
from emokd.training.sharding import batch_sharding, create_mesh, replicated
from emokd.training.state import State, create_state, which_move
from emokd.training.step import create_train_step, parameter_labels


def memory_maps() -> float:
    """The share of the memory maps that Linux allows this process which it uses; 0 where that is not known."""
    try:
        used = len(pathlib.Path("/proc/self/maps").read_bytes().splitlines())
        return used / int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:
        return 0.0


class Leaves(NamedTuple):
    """The state's leaves during a phase.

    Attributes:
      moving: what a step may change; donated to it.
      resting: what no step of the phase changes, such as the other groups' parameters and moments.
    """

    moving: list[Array]
    resting: list[Array]


class PhaseStep:
    """A phase's compiled step: (leaves, constants, batch) -> (leaves, metrics).

    It works on lists: the state is a tree of thousands of nodes (optax keeps a whole tree for every group), and on
    small networks taking that apart and passing on what rests takes longer than the step computes.

    Attributes:
      compiled: the program, (moving, resting, constants, batch) -> (moving, metrics).
    """

    def __init__(self, compiled: jax.stages.Compiled, structure: jax.tree_util.PyTreeDef, moves: Sequence[bool]):
        self.compiled = compiled
        self._structure, self._moves = structure, moves
        self._failed = jax.tree.unflatten(structure, range(len(moves))).failed

    def __call__(self, leaves: Leaves, constants: Tree, batch: Batch) -> tuple[Leaves, dict[str, Array]]:
        moving, metrics = self.compiled(*leaves, constants, batch)
        return Leaves(moving, leaves.resting), metrics

    def flatten(self, state: State) -> Leaves:
        """The leaves of a state, which the first step takes over."""
        return sort_leaves(jax.tree.leaves(state), self._moves)

    def failed(self, leaves: Leaves) -> Array:
        """`State.failed` among the leaves, without putting the state together."""
        return leaves.moving[sum(self._moves[: self._failed])]

    def unflatten(self, leaves: Leaves) -> State:
        """The state with these leaves."""
        return jax.tree.unflatten(self._structure, join_leaves(leaves, self._moves))


def sort_leaves(leaves: Sequence[Any], moves: Sequence[bool]) -> Leaves:
    """Leaves in the order of `jax.tree.leaves`, apart by whether they move."""
    sorted_ = [[leaf for leaf, m in zip(leaves, moves, strict=True) if m is kind] for kind in (True, False)]
    return Leaves(*sorted_)


def join_leaves(leaves: Leaves, moves: Sequence[bool]) -> list[Any]:
    """`sort_leaves` undone."""
    moving, resting = iter(leaves.moving), iter(leaves.resting)
    return [next(moving if m else resting) for m in moves]


class Programs:
    """A recipe's compiled programs on its mesh. Nothing is compiled before it is asked for.

    Attributes:
      recipe: the recipe, gathering what is split.
      mesh: the devices.
      placement: where state and constants live.
      labels: the group of each parameter.
      watched: what `State.failed` is of.
      create: key -> the state at step 0, born where it belongs.
      predict: (params, stats, constants, batch) -> what is scored.
      observe: (params, stats, constants, batch) -> what the report draws, or None.
    """

    def __init__(self, recipe: Recipe, config: ml_collections.ConfigDict, classes: int, mesh: Mesh | None = None):
        """Takes of the configuration what programs depend on: devices, optimiser.

        Args:
          recipe: the recipe.
          config: the run's configuration; its seed is not among what is taken.
          classes: how many expressions there are.
          mesh: the devices to compile for, which need not be here; None for those that the configuration says.
        """
        self.mesh = create_mesh(config.devices, **config.mesh) if mesh is None else mesh
        self.placement = create_placement(recipe, config, self.mesh, classes)
        self.recipe = recipe = gathering(recipe, self.placement)
        everywhere = replicated(self.mesh)
        create = functools.partial(create_state, recipe, config, classes)
        self.create = jax.jit(create, out_shardings=self.placement.state)
        heads = recipe.networks["student"].heads if recipe.networks else ()
        self.predict = evaluation.create_predict(recipe.predict, heads, self.mesh)
        self.observe = jax.jit(recipe.observe, out_shardings=everywhere) if recipe.observe else None
        self.labels = parameter_labels(recipe)
        _, stats = jax.eval_shape(recipe.init, jax.random.key(0))
        self.watched = divergence.watched(recipe.groups, stats)
        self._train_step = create_train_step(recipe, config, self.labels)
        self._steps: dict[tuple, PhaseStep] = {}

    @functools.cached_property
    def abstract(self) -> State:
        """Shapes and dtypes of the state."""
        return jax.eval_shape(self.create, jax.random.key(0))

    def step(self, phase: int, state: State, constants: Tree, batch: Batch) -> PhaseStep:
        """The compiled step of a phase, for batches like this one."""
        sharding = batch_sharding(self.mesh)
        abstract = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=sharding) for k, v in batch.items()}
        key = (phase, *sorted((name, x.shape, str(x.dtype)) for name, x in abstract.items()))
        if key not in self._steps:
            traced = self.trace(phase, state, constants, abstract)
            moves, structure = self._moves(phase, state), jax.tree.structure(state)
            with jax.set_mesh(self.mesh):
                self._steps[key] = PhaseStep(traced.lower().compile(), structure, moves)
        return self._steps[key]

    def trace(self, phase: int, state: State, constants: Tree, batch: Tree) -> jax.stages.Traced:
        """What `step` compiles: (moving, resting, constants, batch) -> (moving, metrics), which takes over moving."""
        moves = self._moves(phase, state)
        leaves, structure = jax.tree.flatten(state)

        def function(moving, resting, constants, batch):
            state = jax.tree.unflatten(structure, join_leaves(Leaves(moving, resting), moves))
            state, metrics = self._train_step(state, constants, batch, phase=phase)
            return sort_leaves(jax.tree.leaves(state), moves).moving, metrics

        places = sort_leaves(jax.tree.leaves(self.placement.state), moves).moving
        step = jax.jit(function, donate_argnums=0, out_shardings=(places, replicated(self.mesh)))
        with jax.set_mesh(self.mesh):  # for arrays gathered over it, and operations in the form that suits its devices
            return step.trace(*sort_leaves(leaves, moves), constants, batch)

    def _moves(self, phase: int, state: State) -> list[bool]:
        return jax.tree.leaves(which_move(state, self.labels, self.recipe.phases[phase].learns))


def make_room(shared: dict[str, Programs], maps: Callable[[], float] = memory_maps) -> None:
    """Forgets the programs that were used least lately, until a quarter of the memory maps is free.

    A program compiled for CPU holds hundreds of them, and LLVM aborts the process that asks for one too many: about
    twenty runs' programs of a MobileNetV2 did.

    Args:
      shared: by key, the last one used at the end; what is forgotten is removed.
      maps: gives the share that is in use.
    """
    while shared and maps() > 0.75:
        shared.pop(next(iter(shared)))
        gc.unfreeze()
        gc.collect()  # a finished run's programs sit in reference cycles
