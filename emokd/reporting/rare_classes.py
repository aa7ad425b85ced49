"""Finds classes that a network never predicts, and networks that predict little else than one class. [ours]"""

from collections.abc import Mapping
from typing import Any

from emokd.errors import excerpt

COLLAPSED = 0.95
"""A network is reported that predicts one class for this share of the examples, far more than have it."""

_CLEARLY = 0.05

Counts = Mapping[str, Mapping[str, float]]
"""Training examples by target and class."""


def imbalanced(scores: Mapping[str, Any]) -> bool:
    """Whether the largest of C classes has more than 2 / C of a target's scored examples; of two classes, 3/4.

    Args:
      scores: the scores of one network and one target, as `metrics.classification_scores` gives them.
    """
    found = scores.get("per_class")
    classes = found.values() if isinstance(found, Mapping) else ()
    counts = [values["count"] for values in classes if isinstance(values, Mapping) and "count" in values]
    if len(counts) <= 2:
        return bool(counts) and 4 * max(counts) > 3 * sum(counts)
    return len(counts) * max(counts) > 2 * sum(counts)


def never_predicted(scores: Mapping[str, Any]) -> dict[str, int]:
    """The classes of one target that have examples but are never predicted, with their numbers of examples."""
    return {name: count for name, (count, predicted) in _tally(scores).items() if count and not predicted}


def remarks(networks: Mapping[str, Mapping[str, Any]], split: str, training: Counts) -> list[str]:
    """One sentence for each network and target with a class that occurs in the split and is never predicted.

    Also one where nearly all predictions are a single class, and one for classes without examples in the split.

    Args:
      networks: scores by network ("student" and teachers) and target.
      split: which split was scored.
      training: how many training examples each class has.
    """
    found: list[str] = []
    absent: dict[str, list[str]] = {}
    for network, targets in networks.items():
        who = "the student" if network == "student" else f"teacher {network}"
        for target, scores in targets.items():
            tally = _tally(scores) if isinstance(scores, Mapping) else {}
            if not tally:
                continue
            trained = training.get(target, {})
            found += (f"{split.capitalize()} split: {who} {text}" for text in _of_network(target, scores, trained))
            absent.setdefault(target, [name for name, (count, _) in tally.items() if not count])
    for target, names in absent.items():
        if names:
            found.append(
                f"{split.capitalize()} split: no example of {target} {excerpt(names)}; macro F1 counts a class without "
                "examples as 0, balanced accuracy leaves it out."
            )
    return found


def _of_network(target: str, scores: Mapping[str, Any], training: Mapping[str, float]) -> list[str]:
    """The remarks on one network, as sentences without their subject."""
    found, tally = [], _tally(scores)
    total = sum(count for count, _ in tally.values())
    if never := never_predicted(scores):
        told = excerpt(f"{name} ({_numbers(count, training.get(name))})" for name, count in never.items())
        found.append(f"gives none of the {total} examples the {target} {told}.")
    most = max(tally, key=lambda name: tally[name][1])
    true, share = (number / total for number in tally[most])
    if share >= COLLAPSED and share > true + _CLEARLY:
        found.append(f"gives {share:.1%} of the examples the {target} {most}, which {true:.1%} of them have.")
    return found


def _numbers(count: int, trained: float | None) -> str:
    examples = f"{count} example{'' if count == 1 else 's'}"
    return examples if trained is None else f"{examples}, {trained:.5g} in training"


def _tally(scores: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """How many labels and how many predictions each class has; empty where a target has no such scores."""
    matrix, names = scores.get("confusion"), scores.get("classes")
    if not isinstance(matrix, list) or not isinstance(names, list) or len(matrix) != len(names):
        return {}
    return {
        name: (sum(labels), sum(predicted))
        for name, labels, predicted in zip(names, matrix, zip(*matrix, strict=True), strict=True)
    }
