"""Classes that a network never answers, and networks that answer little else than one class. [ours]"""

from collections.abc import Mapping
from typing import Any

from emokd.errors import excerpt

COLLAPSED = 0.95
"""A network that gives one class this share of its answers, where its share of the labels is clearly less, is named."""

_CLEARLY = 0.05

Counts = Mapping[str, Mapping[str, float]]
"""Training examples by target and class."""


def imbalanced(scores: Mapping[str, Any]) -> bool:
    """Whether the largest class of a target's scored examples has over twice its share, 2 / C; of two classes, 3/4.

    Args:
      scores: those of one network and one target, with `per_class`.
    """
    found = _per_class(scores)
    counts = [values["count"] for values in found.values()]
    return bool(counts) and max(counts) / max(sum(counts), 1) > min(2 / len(counts), 0.75)


def remarks(networks: Mapping[str, Mapping[str, Any]], split: str, training: Counts) -> list[str]:
    """One sentence for each network and target of which some class that occurs in the split has no prediction.

    Also one where nearly all answers are a single class, and one for the classes that the split has no example of.

    Args:
      networks: scores by network ("student" and teachers) and target.
      split: which split was scored.
      training: how many training examples each class has.
    """
    found: list[str] = []
    absent: dict[str, list[str]] = {}
    for network, targets in networks.items():
        for target, scores in targets.items():
            classes = _per_class(scores) if isinstance(scores, Mapping) else {}
            if not classes:
                continue
            who = "the student" if network == "student" else f"teacher {network}"
            found += _of_network(who, target, classes, split, training.get(target, {}))
            if target not in absent:
                absent[target] = [name for name, values in classes.items() if not values["count"]]
    for target, names in absent.items():
        if names:
            found.append(
                f"{split.capitalize()} split: no example of {target} {excerpt(names)}; macro F1 counts a class without "
                "examples as 0, balanced accuracy leaves it out."
            )
    return found


def _of_network(
    who: str, target: str, classes: Mapping[str, Mapping[str, float]], split: str, training: Mapping[str, float]
) -> list[str]:
    found = []
    total = sum(values["count"] for values in classes.values())
    never = {name: values["count"] for name, values in classes.items() if values["count"] and not values["predicted"]}
    if never:
        told = excerpt([f"{name} ({_numbers(count, training.get(name))})" for name, count in never.items()])
        found.append(
            f"{split.capitalize()} split: {who} gives no example the {target} {told}; the split has {total} examples."
        )
    most = max(classes, key=lambda name: classes[name]["predicted"])
    share, true = classes[most]["predicted"] / total, classes[most]["count"] / total
    if share >= COLLAPSED and share > true + _CLEARLY:
        found.append(
            f"{split.capitalize()} split: {who} gives {share:.1%} of the examples the {target} {most}, which "
            f"{true:.1%} of them have."
        )
    return found


def never_predicted(scores: Mapping[str, Any]) -> list[str]:
    """The classes of one target that occur and have no prediction."""
    return [name for name, values in _per_class(scores).items() if values["count"] and not values.get("predicted", 1)]


def _numbers(count: float, trained: float | None) -> str:
    examples = f"{count:g} example{'' if count == 1 else 's'}"
    return examples if trained is None else f"{examples}, {trained:.5g} in training"


def _per_class(scores: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """The scores of each class that hold at least its number of examples."""
    found = scores.get("per_class")
    if not isinstance(found, Mapping):
        return {}
    return {name: values for name, values in found.items() if isinstance(values, Mapping) and "count" in values}
