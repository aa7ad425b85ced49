"""The scoreboard: scores of the student, of its network on labels alone and of its teachers; the teachers' weights."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from emokd.errors import excerpt
from emokd.reporting import rare_classes
from emokd.reporting.table import Table, count_text

HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "ccc", "rmse")
"""Scores with a column of their own, in this order; all others are in scores.json and in the report.

Balanced accuracy has a column where classes are imbalanced, see `rare_classes.imbalanced`.
"""

LOWER_IS_BETTER = frozenset({"rmse", "mae", "mse", "ece", "nll", "brier", "loss", "error", "kl"})

MISSHAPEN = (TypeError, ValueError, AttributeError, LookupError, OverflowError, ZeroDivisionError)
"""Errors that drawing raises where scores.json holds something else than scores."""

COST = ("backbone", "parameters", "macs", "size")
"""What `emokd.models.cost.describe` adds to a network's scores."""


def flatten_scores(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number among nested scores by its dotted name, such as "student.expression.accuracy"."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= flatten_scores(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def headline_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores of one network that the scoreboard shows, by dotted name, target by target."""
    equal = {f"{name}.balanced_accuracy" for name, value in scores.items() if not _imbalanced(value)}
    flat = flatten_scores({name: value for name, value in scores.items() if name not in COST})
    found = [name for name in flat if headline(name) and "class" not in name and name not in equal]
    targets = list(dict.fromkeys(name.split(".")[0] for name in found))
    found.sort(key=lambda name: (targets.index(name.split(".")[0]), HEADLINES.index(headline(name))))
    return {name: flat[name] for name in found}


def headline(name: str) -> str:
    """The headline that a dotted score name belongs to: "ccc" for "valence_arousal.mean_ccc"; empty for none."""
    last = name.split(".")[-1].removeprefix("mean_")
    return last if last in HEADLINES else ""


def higher_is_better(name: str) -> bool:
    """Whether a score of this dotted name is better when larger."""
    return not any(part in LOWER_IS_BETTER for part in re.split(r"[._/]", name))


def scoreboard(scores: Mapping[str, Any]) -> str:
    """The scoreboard as aligned Markdown, for the terminal and for documents.

    Args:
      scores: the content of scores.json: "student", "baseline" and "teachers" with their scores and costs, "weights" by
        phase ({"mean": {teacher: weight}, "by_class": {class: {teacher: weight}}}), "split", "examples".
    """
    return "\n\n".join(table.markdown() for table in scoreboard_tables(scores))


def scoreboard_tables(scores: Mapping[str, Any]) -> list[Table]:
    """The scoreboard's tables: scores, scores with fewer modalities, the teachers' weights in each phase."""
    return [score_table(scores), *variant_tables(scores), *weight_tables(scores.get("weights") or {})]


def score_table(scores: Mapping[str, Any]) -> Table:
    """Student and teachers with their headline scores, parameters and MACs; notes say who is ahead."""
    networks = named_networks(scores)
    found = {name: headline_scores(entry) for name, entry in networks.items()}
    columns = list(dict.fromkeys(column for values in found.values() for column in values))
    several = len({column.split(".")[0] for column in columns} - {"valence_arousal"}) > 1
    header = ["", *(column_name(column, with_target=several) for column in columns), "parameters", "MACs"]
    rows = [
        [
            name,
            *(score_text(found[name].get(column)) for column in columns),
            count_text(entry.get("parameters")),
            macs_text(entry),
        ]
        for name, entry in networks.items()
    ]
    where = f"{scores['split']} split" if scores.get("split") else "unknown split"
    if scores.get("examples") is not None:
        where += f", {scores['examples']} examples"
    teachers = {name: found[f"teacher {name}"] for name in scores.get("teachers") or {}}
    notes = comparisons({"student": found["student"], **teachers}, several)
    if scores.get("selected_on") == "test":
        notes.append("The test split itself picked the epoch: these scores are optimistic.")
    notes += [
        f"Phase {phase} was stopped early, after {entry['steps']} of {entry['of']} steps."
        for phase, entry in (scores.get("stopped_early") or {}).items()
    ]
    notes += [
        f"{len(steps)} of {whose} steps {'was' if len(steps) == 1 else 'were'} skipped, because something was not "
        f"finite: {excerpt(steps)}."
        for whose, trained in (("the run's", scores), ("the baseline's", scores.get("baseline_training") or {}))
        if (steps := trained.get("skipped_steps"))
    ]
    notes += scores.get("remarks") or ()
    notes += accepted_texts(scores.get("accepted_changes") or ())
    return Table(header, rows, title=f"Scores: {where}, one run", notes=notes)


def named_networks(scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of the student, of the same network on labels alone where it was trained, and of the teachers."""
    alone = {"labels alone": scores["baseline"]} if scores.get("baseline") else {}
    teachers = {f"teacher {name}": entry for name, entry in (scores.get("teachers") or {}).items()}
    return {"student": scores.get("student") or {}, **alone, **teachers}


def accepted_texts(changes: Iterable[str]) -> list[str]:
    """A sentence for each accepted change of what a run began with (`accepted_changes` of its scores)."""
    return [f"Accepted although the run began with something else: {change}." for change in changes]


def _imbalanced(scores: Any) -> bool:
    return isinstance(scores, Mapping) and rare_classes.imbalanced(scores)


def variant_tables(scores: Mapping[str, Any]) -> list[Table]:
    """A table of headline scores of networks that got only some of their modalities; empty where there are none."""
    found = {name: headline_scores(entry) for name, entry in (scores.get("variants") or {}).items()}
    columns = list(dict.fromkeys(column for values in found.values() for column in values))
    if not columns:
        return []
    several = len({column.split(".")[0] for column in columns} - {"valence_arousal"}) > 1
    header = ["", *(column_name(column, with_target=several) for column in columns)]
    rows = [[name, *(score_text(values.get(column)) for column in columns)] for name, values in found.items()]
    return [Table(header, rows, title="With the modalities in brackets alone")]


def comparisons(found: Mapping[str, Mapping[str, float]], with_target: bool) -> list[str]:
    """One sentence per headline score: whether the student beats the best teacher that has it, and by how much."""
    sentences = []
    for column, own in found["student"].items():
        rivals = {name: values[column] for name, values in found.items() if name != "student" and column in values}
        rivals = {name: value for name, value in rivals.items() if value == value}
        if not rivals:
            continue
        upward = higher_is_better(column)
        best = (max if upward else min)(rivals, key=lambda name: rivals[name])
        gap = own - rivals[best] if upward else rivals[best] - own
        verdict = "beats" if gap > 0 else "equals" if gap == 0 else "does not beat"
        by = f" by {abs(gap):.4f}" if gap > 0 else f"; it lacks {abs(gap):.4f}" if gap < 0 else ""
        label = column_name(column, with_target=with_target)
        label = label[0].upper() + label[1:]
        if own != own:
            sentences.append(f"{label}: the student has no score.")
        else:
            sentences.append(
                f"{label}: the student ({own:.4f}) {verdict} the best teacher, {best} ({rivals[best]:.4f}){by}."
            )
    return sentences


def weight_tables(weights: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Mean weight of each teacher in each phase, over all examples and by class."""
    tables = []
    for phase, means in weights.items():
        rows = {"all": means.get("mean") or {}, **(means.get("by_class") or {})}
        teachers = list(dict.fromkeys(teacher for row in rows.values() for teacher in row))
        cells = [[name, *(weight_text(row.get(teacher)) for teacher in teachers)] for name, row in rows.items()]
        if teachers:
            tables.append(Table(["class", *teachers], cells, title=f"Mean weight of each teacher in phase {phase}"))
    return tables


def column_name(column: str, *, with_target: bool = True) -> str:
    """A dotted score name as a heading: "expression.macro_f1" as "macro F1", with its target where asked."""
    target, *rest = column.split(".")
    # "valence CCC" is clear without the target's name before it.
    named = with_target and target != "valence_arousal"
    words = " ".join([target, *rest] if named or not rest else rest).replace("_", " ")
    return re.sub(r"\b(ccc|pcc|rmse|mae|sagr|f1)\b", lambda match: match.group().upper(), words)


def macs_text(entry: Mapping[str, Any]) -> str:
    """A network's MACs with the input side that they hold for, such as "300 M at 224"; "-" where unknown."""
    at = f" at {entry['size']}" if entry.get("macs") is not None and entry.get("size") else ""
    return count_text(entry.get("macs")) + at


def score_text(value: float | None) -> str:
    """A score with four decimals, or "-"."""
    return "-" if value is None else f"{value:.4f}"


def weight_text(value: float | None) -> str:
    """A weight with three decimals, or "-"."""
    return "-" if value is None else f"{value:.3f}"
