"""Scores over a whole split: exact where the last batch is not full, the same on any number of devices."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from emokd import metrics
from emokd.errors import InputError, nearest
from emokd.phase import Batch, Predict, Tree
from emokd.training.sharding import replicated

Predictions = dict[str, dict[str, np.ndarray]]
Predictor = Callable[[Tree, Tree, Tree, Batch], dict[str, dict[str, jax.Array]]]
"""(params, stats, constants, batch) -> outputs by network and target."""


def create_predict(predict: Predict, heads: Sequence[str], mesh: Mesh) -> Predictor:
    """Compiles a recipe's `predict` down to what is scored: logits, and valence and arousal, of each network.

    Args:
      predict: (params, stats, constants, batch) -> Signals of each network by name.
      heads: the student's heads. Teachers are scored on expression, valence and arousal alone: a teacher's own
        task may not be one of this data set.
      mesh: the devices; each of them gets all outputs.
    """
    further = [head for head in heads if head not in ("expression", "valence_arousal")]

    def outputs(params: Tree, stats: Tree, constants: Tree, batch: Batch):
        by_network = {}
        for name, signal in predict(params, stats, constants, batch).items():
            parts = {"expression": signal.logits, "valence_arousal": signal.valence_arousal}
            if name == "student":
                parts |= {head: signal.intermediates[head] for head in further}
            by_network[name] = {target: values for target, values in parts.items() if values is not None}
        return by_network

    return jax.jit(outputs, out_shardings=replicated(mesh))


def collect(
    predict: Predictor,
    params: Tree,
    stats: Tree,
    constants: Tree,
    batches: Iterable[Mapping[str, jax.Array]],
) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Predicts a whole split.

    Returns:
      (predictions by network and target, target columns and `id` and `check` by name), as arrays of all rows but the
      masked ones
    """
    collected: list[Any] = []
    columns: list[dict[str, np.ndarray]] = []
    for batch in batches:
        outputs = predict(params, stats, constants, batch)
        # Only these go to the host: a batch also holds pictures, tables and cached teacher features.
        wanted = {"mask", "id", "check", "votes", *(target for answers in outputs.values() for target in answers)}
        collected.append(jax.device_get(outputs))
        columns.append({name: fetch(batch[name]) for name in sorted(wanted) if name in batch})
    keep = np.concatenate([c["mask"] for c in columns])
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[keep], *collected)
    return joined, {name: np.concatenate([c[name] for c in columns])[keep] for name in columns[0]}


def fetch(values: jax.Array) -> np.ndarray:
    """Copies a global array to this host, whichever processes hold its parts."""
    if values.is_fully_addressable:
        return np.asarray(jax.device_get(values))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def score(predictions: Predictions, columns: Mapping[str, np.ndarray], classes: Mapping[str, tuple[str, ...]]) -> dict:
    """Scores of every network: {"student": {"expression": {...}, "valence_arousal": {...}}, teacher: ...}."""
    scores: dict[str, dict] = {}
    for name, outputs in predictions.items():
        scores[name] = {}
        for target, values in outputs.items():
            if target == "valence_arousal":
                if target in columns:
                    # Networks predict unbounded values; scores are of values clipped to the scale.
                    scores[name][target] = metrics.affect_scores(np.clip(values, -1, 1), columns[target])
                continue
            labels = columns.get("votes") if target == "expression" and "votes" in columns else columns.get(target)
            if labels is not None:
                shifted = values - values.max(-1, keepdims=True)
                probabilities = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
                scores[name][target] = metrics.classification_scores(probabilities, labels, classes[target])
    return scores


def selection_score(scores: Mapping[str, Any], metric: str) -> float:
    """The number that decides which checkpoint is best: a "/"-joined path in the student's scores.

    Raises:
      InputError: there is no such score.
    """
    value: Any = scores
    for part in metric.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            keys = sorted(value) if isinstance(value, Mapping) else []
            raise InputError(f"config.select.metric is {metric!r}, but {part!r} is not in {keys}.{nearest(part, keys)}")
        value = value[part]
    return float(value)
