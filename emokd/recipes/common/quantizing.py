"""A student that learns to compute in 8-bit integers in the last phase of its recipe, `config.student.quantized`.

The phase begins with the ranges that the student's activations take on the training set, unaugmented, and keeps them.
Losses and teachers are those that the phase has anyway; the student answers through simulated integers
(`models.rounding`). Its BatchNorm statistics rest, because they are folded into the integers (Jacob et al. 2018,
arXiv:1712.05877, section 3.2), and so does its dropout. That ranges are taken once, on a student that has learnt,
rather than followed during training, is [ours].
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from emokd.errors import InputError
from emokd.models.rounding import RANGES, taking_ranges
from emokd.phase import Batch, Tree

Weights = TypeVar("Weights")
"""A tree of arrays."""


def is_wanted(config: ml_collections.ConfigDict) -> bool:
    """Whether the student is to learn to compute in integers, `config.student.quantized`.

    Raises:
      InputError: it is, and the configuration asks for something that does not go with that.
    """
    if not config.student.get("quantized", False):
        return False
    conflicts = {
        f"precision={config.precision}, in which integers cannot be simulated": config.precision != "float32",
        "remat=True, which traces layers out of their order": config.remat,
        "baseline.enabled=True, whose network computes in floating point": config.baseline.enabled,
        "backbone_multiplier=0, with which the backbone cannot adapt": not config.backbone_multiplier,
    }
    if found := [words for words, there in conflicts.items() if there]:
        raise InputError(
            f"config.student.quantized does not go with config.{', nor with config.'.join(found)}. Change that, or set "
            "config.student.quantized=False."
        )
    return True


def check_beginning(phase: str, learnt: bool) -> None:
    """Checks that a student which is to be quantised has learnt something before.

    Args:
      phase: the phase in which it learns to compute in integers.
      learnt: whether it begins that phase with weights that another phase or run has trained.

    Raises:
      InputError: it has not: the ranges of fresh weights say nothing of later ones.
    """
    if not learnt:
        raise InputError(
            f"config.student.quantized: phase {phase!r} begins with a fresh network, whose activations say nothing "
            "about the ranges that they will have. Train it in floating point first, and name that run in "
            "config.start_from."
        )


def are_taken(stats: Tree) -> Bool[Array, ""]:
    """Whether the ranges among a student's statistics have been taken."""
    return (stats[RANGES][:, 1] > stats[RANGES][:, 0]).any()


def take_ranges(look: Callable[[Weights, Batch], None], weights: Weights, batches: Iterable[Batch]) -> Array:
    """The smallest and the largest value at each place of a network over a data set.

    Args:
      look: runs the network in floating point on a batch.
      weights: its first argument.
      batches: the data set; padding does not count.

    Returns:
      Low and high, float32 [P, 2].

    Raises:
      InputError: there is no example, or an activation is not finite.
    """

    def bounds(weights: Weights, batch: Batch) -> Array:
        with taking_ranges(batch["mask"]) as seen:
            look(weights, batch)
        return jnp.stack(seen)

    found: np.ndarray | None = None
    compiled, everywhere = jax.jit(bounds), None
    for batch in batches:
        if everywhere is None:
            sharding = getattr(batch["mask"], "sharding", None)
            if isinstance(sharding, NamedSharding):
                everywhere = NamedSharding(sharding.mesh, PartitionSpec())
                compiled = jax.jit(bounds, out_shardings=everywhere)
        low, high = np.asarray(jax.device_get(compiled(weights, batch))).T
        if found is not None:
            low, high = np.minimum(low, found[0]), np.maximum(high, found[1])
        found = np.stack([low, high])
    if found is None or (found[0] > found[1]).any():
        raise InputError("There is no training example to take the ranges of activations from.")
    if not np.isfinite(found).all():
        raise InputError(
            "The student's activations are not finite on the training set, so they have no ranges to round in. Train "
            "it with a lower learning rate."
        )
    return jax.device_put(found.T, everywhere) if everywhere is not None else jnp.asarray(found.T)
