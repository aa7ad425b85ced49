"""Where the time of a step goes: its parts, each measured alone on the step's own batch and weights.

Parts measured alone need not add up to the step. XLA fuses across them, overlaps them, and lets them share what both
need; a part alone reads its inputs from memory and writes its results there. The rest (losses, weighting, transport)
is the step minus the parts: a difference, which can be negative, and which holds whatever could not be measured alone.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from emokd.benchmarking.program import count_live_macs, used_arguments
from emokd.benchmarking.timing import Clock, Rule, interleave, ratio
from emokd.models.multimodal import MultimodalSpec
from emokd.models.network import NetworkSpec, functional
from emokd.phase import Batch, Phase, Recipe, Tree
from emokd.recipes.common import create_augmentation, create_network, create_views, see
from emokd.signals import Signals
from emokd.training.optimizer import create_optimizer
from emokd.training.programs import Leaves, join_leaves, sort_leaves
from emokd.training.sharding import replicated
from emokd.training.state import State, which_move
from emokd.training.step import split_parameters

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Use:
    """What a phase does with a network.

    Attributes:
      path: where its weights lie in {"params": ..., "constants": ...}.
      learns: the groups among its weights that learn; none where only its answer is asked.
      labels: the group of each of its parameters; None for constants.
    """

    path: Path
    learns: frozenset[str]
    labels: Tree | None


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A phase's compiled step and what it works on.

    Attributes:
      recipe, config, phase: what is measured.
      labels: the group of each parameter.
      mesh: the devices.
      take: takes a step, on a state of its own.
      state: what the parts are measured on.
      constants: the recipe's, on the devices.
      batch: what the parts are measured on.
    """

    recipe: Recipe
    config: ConfigDict
    phase: Phase
    labels: Tree
    mesh: Mesh
    take: Callable[[], Any]
    state: State
    constants: Tree
    batch: Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A part of a step.

    Attributes:
      function: what is compiled.
      arguments: gives what it is called with, each time anew because steps replace the state.
      keep: takes its results and passes them on.
    """

    function: Callable
    arguments: Callable[[], tuple]
    keep: Callable[[Any], Any] = lambda results: results


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledPart:
    """A part of a step, ready to be timed.

    Attributes:
      what: is done in it.
      macs: multiply-accumulates, over all devices.
      call: does it once and returns its results.
    """

    what: str
    macs: int
    call: Callable[[], Any]


def split_step(step: Step, rule: Rule, clock: Clock = time.perf_counter) -> list[dict[str, Any]]:
    """Measures the parts of a step in turn with the step itself.

    Args:
      step: the step, compiled; called under its mesh.
      rule: warm-up and rounds.
      clock: gives seconds.

    Returns:
      For each part of `create_parts`, the rest last, {"part", "what", "seconds", "share" of the step, "macs"}; None
      where it was not measured, or has no meaning.
    """
    uses = find_uses(step)
    ready = create_parts(step, uses)
    calls = {STEP: step.take, **{name: part.call for name, part in ready.items()}}
    times = interleave(calls, rule, clock)
    whole = times.pop(STEP)
    parts: list[dict[str, Any]] = [
        {
            "part": name,
            "what": ready[name].what,
            "macs": ready[name].macs,
            "seconds": timing.median,
            "share": ratio(timing, whole),
        }
        for name, timing in times.items()
    ]
    missing = {"what": "not measured", "seconds": None, "share": None, "macs": None}
    parts += [{"part": name, **missing} for name, use in uses.items() if use is None]
    rest = whole.median - sum(timing.median for timing in times.values())
    return [
        *parts,
        {"part": "rest", "what": REST, "seconds": rest, "share": rest / whole.median, "macs": None},
    ]


def create_parts(step: Step, uses: dict[str, Use | None]) -> dict[str, CompiledPart]:
    """The parts of a step, compiled.

    They are: the views of all networks that run in the phase; each of these networks, forward alone where it rests,
    forward and backward (of the sum of its answers) where any of it learns; the optimiser's update.

    Args:
      step: the step, compiled; called under its mesh.
      uses: what `find_uses` says of its networks.
    """
    parts: dict[str, CompiledPart] = {}

    def add(part: str, what: str, work: Part, **options) -> None:
        compiled = jax.jit(work.function, **options).lower(*work.arguments()).compile()
        macs = count_live_macs(work.function, *work.arguments())
        parts[part] = CompiledPart(what, macs, lambda: work.keep(compiled(*work.arguments())))

    found = {name: use for name, use in uses.items() if use is not None}
    inputs: dict[str, Any] = {}
    if found:
        add(VIEWS, "augmentation", _views_part(step, found))
        inputs = parts[VIEWS].call()
    for name, use in found.items():
        work = _network_part(step, name, use, inputs[name])
        if use.learns:
            add(name, "forward and backward", work, out_shardings=replicated(step.mesh))
        else:
            add(name, "forward", work)
    update = _update_part(step)
    places = [leaf.sharding for leaf in update.arguments()[1]]
    add("optimiser", "update", update, out_shardings=places, donate_argnums=1)
    return parts


STEP, VIEWS = "step", "views"
REST = "losses, weighting, transport"


def find_uses(step: Step) -> dict[str, Use | None]:
    """How the phase uses each of the recipe's networks, those that it does not run left out.

    A network's weights are found by their tree: the subtree of parameters or constants that has its structure and
    shapes and, where there are several, its name on the way to it. It runs where the losses depend on any of its
    weights outside its heads (the heads alone are what is left of a teacher whose features are cached). None for a
    network whose weights are not found or whose kind is unknown.
    """
    state = step.state
    trees = {"params": state.params, "constants": step.constants}

    def losses(trees):
        outcome = step.phase.objective(trees["params"], state.stats, trees["constants"], step.batch, state.key)
        values = {name: term.values for name, term in outcome.terms.items()}
        return values, outcome.teacher_losses, outcome.evidence if outcome.teacher_losses is not None else None

    (used,) = used_arguments(losses, trees)
    found: dict[str, Use | None] = {}
    for name, spec in step.recipe.networks.items():
        known = isinstance(spec, NetworkSpec | MultimodalSpec)
        path = _find_weights(trees, functional(spec).abstract[0], name) if known else None
        if path is None:
            found[name] = None
        elif any(jax.tree.leaves(_without_heads(_at(used, path)))):
            labels = _at(step.labels, path[1:]) if path[0] == "params" else None
            learns = frozenset(jax.tree.leaves(labels)) & frozenset(step.phase.learns)
            found[name] = Use(path, learns, labels)
    return found


def _without_heads(tree: Tree) -> Tree:
    return {key: value for key, value in tree.items() if key != "heads"}


def _find_weights(trees: Tree, wanted: Tree, name: str) -> Path | None:
    """The path of the one subtree that looks like `wanted`, or of the one of these that has `name` in its path."""
    matching = [path for path, tree in _subtrees(trees) if _looks_like(tree, wanted)]
    named = [path for path in matching if name in path]
    chosen = named or matching
    return chosen[0] if len(chosen) == 1 else None


def _subtrees(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tree]]:
    if isinstance(tree, dict):
        yield path, tree
        for key, value in tree.items():
            yield from _subtrees(value, (*path, key))


def _looks_like(tree: Tree, wanted: Tree) -> bool:
    shapes = [[leaf.shape for leaf in jax.tree.leaves(t)] for t in (tree, wanted)]
    return shapes[0] == shapes[1] and str(jax.tree.structure(tree)) == str(jax.tree.structure(wanted))


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _views_part(step: Step, names: Iterable[str]) -> Part:
    """The training view of each of these networks."""
    augmentation = create_augmentation(step.config.data.augment)

    def views(batch):
        view = create_views(batch, augmentation, step.config.data.view_seed)
        return {name: see(step.recipe.networks[name], batch, view) for name in names}

    return Part(views, lambda: (step.batch,))


def _network_part(step: Step, name: str, use: Use, inputs: Any) -> Part:
    """A network's answers, or the gradients of what learns with the new statistics."""
    spec = step.recipe.networks[name]
    network = create_network(spec, step.config)
    # BatchNorm statistics of ones: the time does not depend on their values.
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), network.abstract[1])
    stats = jax.device_put(ones, replicated(step.mesh))

    def arguments():
        trees = {"params": step.state.params, "constants": step.constants}
        return _at(trees, use.path), stats, inputs, step.state.key

    def answers(signals: Signals) -> list[Array]:
        heads = [signals.intermediates[head] for head in spec.heads if head in signals.intermediates]
        return jax.tree.leaves([signals.features, signals.logits, signals.valence_arousal, heads])

    def forward(params, stats, inputs, key):
        del key
        return answers(network(params, stats, inputs)[0])

    def learn(params, stats, inputs, key):
        values, merge = split_parameters(params, use.labels, set(use.learns))
        # Recipes keep a network in evaluation mode while its heads alone learn.
        train = not use.learns.isdisjoint(jax.tree.leaves(_without_heads(use.labels)))

        def total(values):
            signals, moved = network(merge(values), stats, inputs, train=train, key=key)
            return sum(x.astype(jnp.float32).sum() for x in answers(signals)), moved

        return jax.grad(total, has_aux=True)(values)

    return Part(learn if use.learns else forward, arguments)


def _update_part(step: Step) -> Part:
    """What the optimiser makes of gradients, on lists of leaves as in the step; what moves is its own, and donated."""
    groups, labels = set(step.phase.learns), step.labels
    optimizer = create_optimizer(step.config.optimizer, step.phase, labels, step.recipe.groups)
    state = step.state
    gradients = split_parameters(state.params, labels, groups)[0]
    move = which_move(state, labels, step.phase.learns)
    moves = jax.tree.leaves((move.optimizer, move.params))
    leaves, structure = jax.tree.flatten((state.optimizer, state.params))
    held, resting = sort_leaves(leaves, moves)
    held = jax.tree.map(jnp.copy, held)

    def keep(results):
        nonlocal held
        held = results
        return results

    def update(gradients, moving, resting, count):
        moments, params = jax.tree.unflatten(structure, join_leaves(Leaves(moving, resting), moves))
        _, merge = split_parameters(jax.tree.map(jnp.zeros_like, params), labels, groups)
        # As in the step: optax raises a float to the power of an int32 count.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimizer.update(merge(gradients), moments, params, phase_step=count)
        moved = jax.tree.leaves((moments, optax.apply_updates(params, updates)))
        return sort_leaves(moved, moves).moving

    return Part(update, lambda: (gradients, held, resting, state.step), keep)
