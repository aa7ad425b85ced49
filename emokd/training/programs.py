"""A recipe's compiled programs: one per phase and a few more. Runs that differ only in seed and data share them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh
from jaxtyping import Array

from emokd.phase import Batch, Recipe, Tree
from emokd.training import divergence, evaluation, memory
from emokd.training.placement import create_placement, gathering
from emokd.training.sharding import batch_sharding, create_mesh, replicated
from emokd.training.state import State, create_state, which_move
from emokd.training.step import create_train_step, parameter_labels

KEPT = 16
"""How many recipes' programs a process keeps: the variants of a study take turns."""


class Leaves(NamedTuple):
    """The state's leaves during a phase.

    Attributes:
      moving: what a step may change; donated to it.
      resting: what no step of the phase changes, such as the parameters and moments of frozen groups.
    """

    moving: list[Array]
    resting: list[Array]


class PhaseStep:
    """A phase's compiled step: (leaves, constants, batch) -> (leaves, metrics).

    It works on lists: the state is a tree of thousands of nodes (optax keeps a whole tree for every group). For small
    networks, flattening that tree and passing frozen leaves through the program takes longer than the computation.

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
        """The leaves of a state; the first step donates the moving ones."""
        return sort_leaves(jax.tree.leaves(state), self._moves)

    def failed(self, leaves: Leaves) -> Array:
        """`State.failed` among the leaves, without unflattening the state."""
        return leaves.moving[sum(self._moves[: self._failed])]

    def unflatten(self, leaves: Leaves) -> State:
        """The state with these leaves."""
        return jax.tree.unflatten(self._structure, join_leaves(leaves, self._moves))


def sort_leaves(leaves: Sequence[Any], moves: Sequence[bool]) -> Leaves:
    """Sorts leaves in the order of `jax.tree.leaves` into moving and resting ones."""
    sorted_ = [[leaf for leaf, m in zip(leaves, moves, strict=True) if m is kind] for kind in (True, False)]
    return Leaves(*sorted_)


def join_leaves(leaves: Leaves, moves: Sequence[bool]) -> list[Any]:
    """The inverse of `sort_leaves`."""
    moving, resting = iter(leaves.moving), iter(leaves.resting)
    return [next(moving if m else resting) for m in moves]


class Programs:
    """A recipe's compiled programs on its mesh, each compiled when it is first needed.

    Attributes:
      recipe: the recipe, which gathers what is sharded (`placement.gathering`).
      mesh: the devices.
      placement: where state and constants live.
      labels: the group of each parameter.
      watched: names of the entries of `State.failed`.
      create: key -> the state at step 0, created on its shardings.
      predict: (params, stats, constants, batch) -> what is scored.
      observe: (params, stats, constants, batch) -> what the report draws, or None.
    """

    def __init__(self, recipe: Recipe, config: ml_collections.ConfigDict, classes: int, mesh: Mesh | None = None):
        """Reads from the configuration what programs depend on: devices, optimiser.

        Args:
          recipe: the recipe.
          config: the run's configuration; its seed is not read.
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
        """Traces what `step` compiles: (moving, resting, constants, batch) -> (moving, metrics); donates `moving`."""
        moves = self._moves(phase, state)
        leaves, structure = jax.tree.flatten(state)

        def function(moving, resting, constants, batch):
            state = jax.tree.unflatten(structure, join_leaves(Leaves(moving, resting), moves))
            state, metrics = self._train_step(state, constants, batch, phase=phase)
            return sort_leaves(jax.tree.leaves(state), moves).moving, metrics

        places = sort_leaves(jax.tree.leaves(self.placement.state), moves).moving
        step = jax.jit(function, donate_argnums=0, out_shardings=(places, replicated(self.mesh)))
        with jax.set_mesh(self.mesh):  # so that an objective may gather over it, and operations suit its devices
            return step.trace(*sort_leaves(leaves, moves), constants, batch)

    def _moves(self, phase: int, state: State) -> list[bool]:
        return jax.tree.leaves(which_move(state, self.labels, self.recipe.phases[phase].learns))


def make_room(shared: dict[str, Programs], is_short: Callable[[], bool] = memory.is_short) -> None:
    """Drops the least recently used programs, until there is room for one more.

    Programs take tens to hundreds of megabytes, and runs whose teachers' weights differ share none. Without a limit a
    study would hold the programs of all its past runs.

    Args:
      shared: programs by key, the most recently used last; changed in place.
      is_short: whether memory, or memory maps, are running short.
    """
    while shared and (len(shared) >= KEPT or is_short()):
        shared.pop(next(iter(shared)))
        memory.release()  # a finished run's programs sit in reference cycles
