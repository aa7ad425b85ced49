"""The optimiser: one optax chain per parameter group; frozen groups keep their optimiser state."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import optax

from emokd.errors import InputError, nearest
from emokd.phase import Phase, Tree


def scale_by_phase_schedule(schedule: optax.Schedule, multiplier: float) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the learning rate at `phase_step`, an extra argument; keeps no state.

    Each phase has its own schedule from its own step 0, while the moments earlier in the chain last over all phases.
    """

    def update(updates, state, params=None, *, phase_step, **extra):
        del params, extra
        rate = -multiplier * jnp.asarray(schedule(phase_step), jnp.float32)
        return jax.tree.map(lambda u: rate.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def hold(transform: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Freezes a group: gives zero updates, and leaves the state of `transform` as it is.

    So a frozen group costs nothing, and the optimiser's state has the same tree in every phase.
    """

    def update(updates, state, params=None, **extra):
        del params, extra
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformationExtraArgs(transform.init, update)


def _decays(params: Tree) -> Tree:
    # Biases and the scales of norms are not decayed.
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _rule(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    rules = {
        "adam": lambda: optax.scale_by_adam(b1=config.b1, b2=config.b2),
        "sgd": lambda: optax.trace(decay=config.momentum, nesterov=config.nesterov),
    }
    if config.name not in rules:
        raise InputError(
            f"config.optimizer.name is {config.name!r}.{nearest(config.name, rules)} Known: {sorted(rules)}."
        )
    return rules[config.name]()


def create_optimizer(
    config: ml_collections.ConfigDict, phase: Phase, labels: Tree, groups: Mapping[str, str]
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of one phase.

    Clipping is inside each group's chain: around the partition it would read the gradients of frozen groups, and the
    compiler could not remove their backward pass.

    Args:
      config: `name` ("adam" or "sgd"), `b1`, `b2`, `momentum`, `nesterov`, `weight_decay` (decoupled),
        `clip_norm` (per group; 0 for none).
      phase: which groups learn, and the schedule.
      labels: the group of each parameter, from `label_parameters`.
      groups: all groups.

    Raises:
      InputError: the optimiser's name is unknown.
    """

    def chain(multiplier: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
            _rule(config),
            optax.add_decayed_weights(config.weight_decay, mask=_decays),
            scale_by_phase_schedule(phase.learning_rate, multiplier),
        )

    transforms = {group: chain(phase.learns[group]) if group in phase.learns else hold(chain(1.0)) for group in groups}
    return optax.partition(transforms, labels)
