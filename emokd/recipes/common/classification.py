"""The cross-entropy of a run, the same for all recipes, with label smoothing and class weights."""

import math
from collections.abc import Sequence
from typing import Protocol

import ml_collections
from jaxtyping import Array, Float

from emokd.errors import InputError, excerpt
from emokd.losses import affect
from emokd.losses.shapes import check_range
from emokd.recipes.common.task import Task, choose

CLASS_WEIGHTS = ("none", "balanced")


class CrossEntropy(Protocol):
    """The loss of a network's logits for a column of classes."""

    def __call__(self, logits: Float[Array, "B C"], labels: Array, column: str = "expression") -> Float[Array, " B"]:
        """The loss of each example, for labels that are ids [B] or votes [B, C]; 0 where unlabelled."""


def create_cross_entropy(config: ml_collections.ConfigDict, task: Task) -> CrossEntropy:
    """The cross-entropy of every network of the run, teachers that it trains included, for any column of classes.

    Args:
      config: `label_smoothing` and `class_weights`.
      task: the facts of the training split; its counts of a column's classes set that column's weights.

    Raises:
      InputError: smoothing outside [0, 1), an unknown kind of weights, or weights where the data has no classes.
    """
    smoothing, name = config.label_smoothing, config.class_weights
    check_range("config.label_smoothing", smoothing, 0, 1, below=True)
    choose(dict.fromkeys(CLASS_WEIGHTS), name, "config.class_weights")
    if name != "none" and not task.classes:
        raise InputError(
            f"config.class_weights is {name!r}, but the data has no classes, only {list(task.columns)}: set it to "
            "'none'."
        )
    weights = {column: class_weights(name, counts) for column, counts in task.counts.items()}

    def cross_entropy(logits: Array, labels: Array, column: str = "expression") -> Float[Array, " B"]:
        return affect.cross_entropy(logits, labels, label_smoothing=smoothing, class_weights=weights.get(column))

    return cross_entropy


def class_weights(name: str, counts: Sequence[float]) -> tuple[float, ...] | None:
    """The weight of each class in the cross-entropy.

    `balanced` is N / (K n_c): n_c of N labelled training examples are of the class, and K classes have any (votes
    count as fractions). So every class has the same share of the loss, and the mean weight over the training examples
    is 1, which leaves the learning rate its meaning. It is scikit-learn's "balanced". A class without training
    examples weighs 0: no example is of it, and smoothing, to which the weights apply as well, must not teach it.

    Returns:
      A weight for each class; None for `none`, and where no training example has a label.
    """
    present = [count for count in counts if count > 0]
    if name == "none" or not present:
        return None
    return tuple(sum(present) / (len(present) * count) if count > 0 else 0.0 for count in counts)


def concerns(config: ml_collections.ConfigDict, task: Task) -> list[str]:
    """Warnings before a run: of classes without training examples, and of too much smoothing beside class weights."""
    columns = [name for name in dict.fromkeys(("expression", *config.get("targets", ()))) if name in task.counts]
    return [text for column in columns for text in _concerns_of(config, column, task)]


def _concerns_of(config: ml_collections.ConfigDict, column: str, task: Task) -> list[str]:
    names, counts = task.classes[column], task.counts[column]
    weights = class_weights(config.get("class_weights", "none"), counts)
    concerns = []
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent and len(absent) < len(names):
        concerns.append(
            f"No training example has the {column} {excerpt(absent)}: what has none is not learned"
            f"{', and its weight is 0' if weights else ''}. Leave it out of the list of classes, or add examples."
        )
    smoothing = config.get("label_smoothing", 0.0)
    if weights and smoothing:
        # The smoothed targets of an example of the class with the lowest weight, times the weights.
        light, heavy = min(weight for weight in weights if weight), max(weights)
        spread = smoothing / len(names)
        if heavy * spread > light * (1 - smoothing + spread):
            concerns.append(
                f"config.label_smoothing is {smoothing} and the weights of {column} differ by {heavy / light:.3g}, so "
                f"that examples of {names[weights.index(light)]} teach {names[weights.index(heavy)]} more than "
                "themselves: lower config.label_smoothing to "
                f"{_safe_smoothing(light, heavy, len(names)):.2g} or less, or set config.class_weights to 'none'."
            )
    return concerns


def _safe_smoothing(light: float, heavy: float, classes: int) -> float:
    """The smoothing at which the lightest class's own weighted target equals the heaviest one's, rounded down."""
    exact = light / (heavy / classes + light * (1 - 1 / classes))
    digits = 10.0 ** -math.floor(math.log10(exact) - 1)
    return math.floor(exact * digits) / digits
