"""Shards parameters and their optimiser state over the mesh's `fsdp` axis, by rules; the rest is replicated.

A step gathers sharded parameters before the objective uses them, and scatters their gradients: the memory of
parameters and moments is divided, the computation is not. That is fully sharded data parallelism (Rajbhandari et
al., ZeRO, SC 2020, stage 3), with the compiler free to choose when each array is gathered.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from emokd.errors import InputError, excerpt, nearest
from emokd.phase import FrozenFeatures, Recipe, Tree, path_string
from emokd.training import averaging
from emokd.training.sharding import replicated
from emokd.training.state import State, create_state

TACTICS = ("replicate", "fsdp")


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Where a run's arrays live.

    Attributes:
      mesh: the devices.
      state: a sharding for each leaf of the training state.
      constants: a sharding for each leaf of the recipe's constants.
    """

    mesh: Mesh
    state: State
    constants: Tree


def create_placement(recipe: Recipe, config: ml_collections.ConfigDict, mesh: Mesh, classes: int) -> Placement:
    """Applies `config.sharding` to a recipe's state and constants; nothing is allocated.

    Raises:
      InputError: a rule is malformed, or applies to no parameter.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    abstract = jax.eval_shape(functools.partial(create_state, recipe, config, classes), key)
    everywhere = replicated(mesh)
    params = place_tree(abstract.params, config.sharding, "state", mesh)
    state = dataclasses.replace(
        jax.tree.map(lambda _: everywhere, abstract),
        params=params,
        average=averaging.restart(abstract.average, params, jax.tree.map(lambda _: everywhere, abstract.stats)),
        optimizer=place_optimizer(abstract.optimizer, abstract.params, params, everywhere),
    )
    return Placement(mesh, state, place_tree(recipe.constants, config.sharding, "teachers", mesh))


def place_tree(tree: Tree, section: ml_collections.ConfigDict, name: str, mesh: Mesh) -> Tree:
    """A sharding for each array of a tree, by the rules of `section[name]`.

    Args:
      tree: arrays or their shapes.
      section: `config.sharding`: rules, and `min_size`; arrays of fewer elements are not split.
      name: "state" or "teachers".
      mesh: the devices.

    Raises:
      InputError: a rule is malformed, matches nothing, or only what rules before it match.
    """
    key = f"config.sharding.{name}"
    rules = [_check_rule(rule, f"{key}[{i}]") for i, rule in enumerate(_as_rules(section[name], key))]
    names = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    chosen = [next((i for i, (pattern, _) in enumerate(rules) if pattern.fullmatch(n)), None) for n in names]
    for i in sorted(set(range(len(rules))) - set(chosen)):
        taken = any(rules[i][0].fullmatch(n) for n in names)
        examples = f"Some: {excerpt(names, 3)}." if names else "There are none: no teacher comes from a file."
        raise InputError(
            f"{key}[{i}], {rules[i][0].pattern!r}, "
            + (
                "matches only what rules before it take; put it first."
                if taken
                else f"matches no parameter. {examples}"
            )
        )
    tactics = ["replicate" if i is None else rules[i][1] for i in chosen]
    leaves, treedef = jax.tree.flatten(tree)
    shardings = [_apply(t, leaf.shape, section.min_size, mesh) for t, leaf in zip(tactics, leaves, strict=True)]
    if mesh.shape["fsdp"] > 1 and "fsdp" in tactics:
        sizes = [math.prod(leaf.shape) for leaf in leaves]
        split = sum(size for size, sharding in zip(sizes, shardings, strict=True) if not sharding.is_fully_replicated)
        logging.info("%s splits %d of %d parameters over %d devices.", key, split, sum(sizes), mesh.shape["fsdp"])
    return jax.tree.unflatten(treedef, shardings)


def place_optimizer(optimizer: Any, params: Tree, shardings: Tree, otherwise: NamedSharding) -> Any:
    """Shardings for an optimiser state: what is kept for each parameter, such as moments, is sharded as the parameter.

    A leaf belongs to a parameter where its path ends in the parameter's and the shapes are equal. The other leaves get
    `otherwise`.
    """
    places = zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True)
    parameters = {tuple(path): (leaf.shape, sharding) for (path, leaf), sharding in places}

    def sharding(path: Sequence[Any], leaf: Any) -> NamedSharding:
        for start in range(len(path)):  # the longest end first
            shape, placed = parameters.get(tuple(path[start:]), (None, otherwise))
            if shape == leaf.shape:
                return placed
        return otherwise

    return jax.tree_util.tree_map_with_path(sharding, optimizer)


def gathering(recipe: Recipe, placement: Placement) -> Recipe:
    """The recipe with functions that first gather sharded parameters and constants; as it is where none is sharded.

    A phase's `prepare` is left as it is: the compiler partitions its passes as it likes.
    """
    params_at, constants_at = placement.state.params, placement.constants
    if all(sharding.is_fully_replicated for sharding in jax.tree.leaves((params_at, constants_at))):
        return recipe

    def gathers(function: Callable) -> Callable:
        def gathered(params, stats, constants, *rest):
            return function(whole(params, params_at), stats, whole(constants, constants_at), *rest)

        return gathered

    def gathers_constants(function: FrozenFeatures) -> FrozenFeatures:
        def gathered(constants, batch, centre):
            return function(whole(constants, constants_at), batch, centre)

        return gathered

    return dataclasses.replace(
        recipe,
        phases=[dataclasses.replace(phase, objective=gathers(phase.objective)) for phase in recipe.phases],
        predict=gathers(recipe.predict),
        observe=gathers(recipe.observe) if recipe.observe else None,
        frozen_features=gathers_constants(recipe.frozen_features) if recipe.frozen_features else None,
    )


def whole(tree: Tree, shardings: Tree) -> Tree:
    """Gathers every sharded array on every device; cotangents are scattered back to the shardings."""
    return jax.tree.map(lambda x, s: x if s.is_fully_replicated else _gather(x, s), tree, shardings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: Array, sharding: NamedSharding) -> Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, PartitionSpec()))


# Without this rule the cotangent would be replicated too: an all-reduce where a reduce-scatter is enough.
_gather.defvjp(
    lambda x, sharding: (_gather(x, sharding), None),
    lambda sharding, _, cotangent: (jax.lax.with_sharding_constraint(cotangent, sharding),),
)


def _as_rules(rules: Any, key: str) -> Sequence[Any]:
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, list | tuple) for rule in rules):
        raise InputError(f'{key} is {rules!r}; write a tuple of rules, such as (("student/.*", "fsdp"),).')
    return rules


def _check_rule(rule: Sequence[Any], key: str) -> tuple[re.Pattern, str]:
    if len(rule) != 2 or not all(isinstance(part, str) for part in rule):
        raise InputError(f'{key} is {rule!r}; a rule is a pair (pattern, tactic), such as ("student/.*", "fsdp").')
    pattern, tactic = rule
    if tactic not in TACTICS:
        raise InputError(
            f"{key}: there is no tactic {tactic!r}.{nearest(tactic, TACTICS)} Known: {', '.join(TACTICS)}."
        )
    try:
        return re.compile(pattern), tactic
    except re.error as error:
        raise InputError(f"{key}: {pattern!r} is no regular expression ({error}).") from error


def _apply(tactic: str, shape: Sequence[int], min_size: int, mesh: Mesh) -> NamedSharding:
    """Splits the largest dimension that `fsdp` divides; replicates small arrays and those without such a dimension."""
    parts = mesh.shape["fsdp"]
    dividing = [d for d, size in enumerate(shape) if size and size % parts == 0]
    if tactic == "replicate" or parts == 1 or not dividing or math.prod(shape) < min_size:
        return replicated(mesh)
    largest = max(dividing, key=lambda d: shape[d])
    return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))
