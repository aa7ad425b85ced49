"""A study's results as results.csv and as table.md."""

import collections
import csv
import dataclasses
import functools
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from emokd.errors import InputError, excerpt, nearest
from emokd.reporting import rare_classes
from emokd.reporting.scoreboard import flatten_scores, higher_is_better, macs_text
from emokd.reporting.table import Table, count_text
from emokd.studies.intervals import Interval, mean_interval, paired_difference

RUN_FACTS = ("commit", "date", "machine", "versions")


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    Attributes:
      variant: its variant.
      seed: its seed.
      fold: its fold; None in a study without folds.
      scores: the content of its scores.json.
      seconds: how long it took; None where that is not known, because it was interrupted and continued.
      facts: commit, date, machine and versions of the run; empty where it was not made by the study.
    """

    variant: str
    seed: int
    fold: int | None
    scores: Mapping[str, Any]
    seconds: float | None
    facts: Mapping[str, str]

    @property
    def unit(self) -> int:
        """The unit that intervals take as independent: the fold, whose test examples no other shares, else the seed."""
        return self.seed if self.fold is None else self.fold

    @property
    def place(self) -> str:
        """Its seed and fold, in words."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """The scores by dotted name."""
        return flatten_scores(self.scores)

    def value(self, name: str) -> float | None:
        """The number of this dotted name; None where there is none or it is not finite."""
        found = self.numbers.get(name)
        return found if found is not None and math.isfinite(found) else None


def results_csv(results: Sequence[Result]) -> str:
    """One row per run: variant, seed, fold, seconds, where it was made, every number of its scores by dotted name."""
    flat = [result.numbers for result in results]
    names = list(dict.fromkeys(name for scores in flat for name in scores))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "fold", "seconds", *RUN_FACTS, *names])
    for result, scores in zip(results, flat, strict=True):
        seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
        facts = [result.facts.get(fact, "") for fact in RUN_FACTS]
        numbers = [repr(scores[name]) if name in scores else "" for name in names]
        fold = "" if result.fold is None else result.fold
        writer.writerow([result.variant, result.seed, fold, seconds, *facts, *numbers])
    return text.getvalue()


def study_table(
    results: Sequence[Result],
    *,
    title: str,
    metric: str,
    also: Sequence[str],
    per_seed: Sequence[str],
    per_fold: Sequence[str],
    baselines: Mapping[str, Sequence[str]],
    planned: int,
    synthetic: bool,
    command: str,
    date: str,
) -> str:
    """The study's table as Markdown: where it comes from, means, paired differences.

    Args:
      results: the finished runs, in the order of their variants.
      title: the heading.
      metric: dotted name of the number compared.
      also: dotted names of further numbers to show; the students' balanced accuracy is one wherever classes are
        unequal, see `rare_classes.imbalanced`.
      per_seed: what a seed sets.
      per_fold: what a fold sets; empty in a study without folds.
      baselines: for each variant, those it is compared with.
      planned: how many runs the study has.
      synthetic: whether any run's data are the face painter's.
      command: the command line.
      date: of the table.

    Raises:
      InputError: a run's scores have no number of the metric's name; the nearest is named.
    """
    for result in results:
        flat = result.numbers
        if metric not in flat:
            raise InputError(
                f"The study's metric is {metric!r}, but the scores of {result.variant}, {result.place} have no "
                f"such number.{nearest(metric, flat)}"
            )
    also = [*also, *(name for name in _balanced_accuracies(results) if name not in (metric, *also))]
    blocks = [f"# {title}"]
    if synthetic:
        blocks.append("Synthetic data (the embedded face painter): no evidence about real faces or about any paper.")
    blocks.append("\n".join(f"- {line}" for line in _header(results, metric, planned, command, date)))
    if results:
        blocks.append(_means(results, metric).markdown())
        differences = _differences(results, metric, baselines)
        if differences.rows:
            blocks.append(differences.markdown())
        if also:
            blocks.append(_further(results, metric, also).markdown())
        if also and differences.rows:
            blocks.append(_further_differences(results, also, baselines).markdown())
    blocks.append("\n\n".join(_notes(results, metric, per_seed, per_fold)))
    return "\n\n".join(blocks) + "\n"


def _header(results: Sequence[Result], metric: str, planned: int, command: str, date: str) -> list[str]:
    splits = collections.Counter(
        f"{result.scores.get('split', 'unknown')} ({result.scores.get('examples', 'unknown number of')} examples)"
        for result in results
    )
    lines = [
        f"Command: `{command}`",
        f"Date: {date}",
        f"Runs: {len(results)} of {planned} finished",
        f"Metric: {metric} ({'higher' if higher_is_better(metric) else 'lower'} is better)",
        f"Split: {_counted(splits)}",
    ]
    for fact in ("commit", "machine", "versions"):
        found = collections.Counter(result.facts.get(fact, "unknown") for result in results)
        lines.append(f"{fact.capitalize()}: {_counted(found)}")
    return lines


def _counted(found: Mapping[str, int]) -> str:
    """The one value, or every value with how many runs have it."""
    if len(found) <= 1:
        return next(iter(found), "none yet")
    return "; ".join(f"{value} ({count} runs)" for value, count in found.items())


def _means(results: Sequence[Result], metric: str) -> Table:
    rows = []
    for variant, group in _by_variant(results).items():
        values = [*_unit_means(_values(group, metric)).values()]
        student = group[0].scores.get("student") or {}
        seconds = [result.seconds for result in group if result.seconds is not None]
        rows.append(
            [
                variant,
                *_interval_cells(mean_interval(values) if values else None),
                count_text(student.get("parameters")),
                macs_text(student),
                f"{statistics.median(seconds):.0f}" if seconds else "-",
            ]
        )
    for label, values, entry in _teachers(results, metric):
        cells = _interval_cells(mean_interval(values))
        rows.append([label, *cells, count_text(entry.get("parameters")), macs_text(entry), "-"])
    return Table(["variant", "mean", "95% interval", "n", "parameters", "MACs", "seconds (median)"], rows)


def _further(results: Sequence[Result], metric: str, also: Sequence[str]) -> Table:
    """Means of further numbers, of students and of teachers."""
    columns: dict[str, dict[str, float]] = {}
    for name in also:
        means = {
            variant: statistics.mean(values)
            for variant, group in _by_variant(results).items()
            if (values := _unit_means(_values(group, name)).values())
        }
        columns[name] = means | {label: statistics.mean(values) for label, values, _ in _teachers(results, name)}
    labels = [*_by_variant(results), *(label for label, *_ in _teachers(results, metric))]
    labels += [label for means in columns.values() for label in means if label not in labels]
    rows = [
        [label, *(f"{means[label]:.4f}" if label in means else "-" for means in columns.values())]
        for label in dict.fromkeys(labels)
    ]
    return Table(["mean of", *map(_short, also)], rows)


def _short(name: str) -> str:
    """A metric's dotted name as a heading: "valence ccc" of "student.valence_arousal.valence.ccc"."""
    return " ".join(name.split(".")[-2:]).replace("expression ", "").replace("_", " ")


def _teachers(results: Sequence[Result], metric: str) -> list[tuple[str, list[float], Mapping[str, Any]]]:
    """(label, values over seeds, scores and cost) of each teacher; one row for variants where it scores the same."""
    if not metric.startswith("student."):
        return []
    rest = metric.removeprefix("student.")
    groups: dict[tuple, tuple[list[str], Mapping[str, Any]]] = {}
    by_variant = _by_variant(results)
    for variant, group in by_variant.items():
        names = dict.fromkeys(name for result in group for name in result.scores.get("teachers") or {})
        for name in names:
            values = tuple(_values(group, f"teachers.{name}.{rest}").items())
            if values:
                entry = next(teachers[name] for r in group if name in (teachers := r.scores.get("teachers") or {}))
                groups.setdefault((name, values), ([], entry))[0].append(variant)
    rows = []
    for (name, values), (variants, entry) in groups.items():
        where = "" if len(variants) == len(by_variant) else f" ({', '.join(variants)})"
        rows.append((f"teacher {name}{where}", [*_unit_means(dict(values)).values()], entry))
    return rows


def _further_differences(
    results: Sequence[Result], also: Sequence[str], baselines: Mapping[str, Sequence[str]]
) -> Table:
    """Mean differences of further numbers, each with its interval in the same cell."""
    found = [_pairs(results, name, baselines) for name in also]
    rows = []
    for label in found[0]:
        cells = [_interval_cells(pairs[label], signed=True) for pairs in found]
        rows.append([label, *(f"{mean} ({ends})" for mean, ends, _ in cells)])
    return Table(["paired by run, mean difference (95% interval)", *map(_short, also)], rows)


def _differences(results: Sequence[Result], metric: str, baselines: Mapping[str, Sequence[str]]) -> Table:
    pairs = _pairs(results, metric, baselines)
    rows = [[label, *_interval_cells(pair, signed=True)] for label, pair in pairs.items()]
    return Table(["paired by run", "mean difference", "95% interval", "n"], rows)


def _pairs(
    results: Sequence[Result], metric: str, baselines: Mapping[str, Sequence[str]]
) -> dict[str, Interval | None]:
    """The paired difference of each variant and each of its baselines; None where no pair of runs is finished."""
    groups = _by_variant(results)
    pairs = {}
    for variant, others in baselines.items():
        for other in others:
            found = [_values(groups.get(name, ()), metric) for name in (variant, other)]
            both = found[0].keys() & found[1].keys()
            ours, theirs = (_unit_means({run: values[run] for run in values if run in both}) for values in found)
            pair = paired_difference([*ours.values()], [theirs[unit] for unit in ours]) if both else None
            pairs[f"{variant} minus {other}"] = pair
    return pairs


Place = tuple[int, int]
"""(unit, seed) of a run."""


def _values(group: Sequence[Result], metric: str) -> dict[Place, float]:
    found = (((result.unit, result.seed), result.value(metric)) for result in group)
    return {run: value for run, value in found if value is not None}


def _unit_means(values: Mapping[Place, float]) -> dict[int, float]:
    """The mean over the seeds of each fold; without folds every seed's own value."""
    units: dict[int, list[float]] = {}
    for (unit, _), value in values.items():
        units.setdefault(unit, []).append(value)
    return {unit: statistics.mean(found) for unit, found in units.items()}


def _by_variant(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.variant, []).append(result)
    return groups


def _interval_cells(interval: Interval | None, *, signed: bool = False) -> list[str]:
    if interval is None:
        return ["-", "-", "0"]
    form = "+.4f" if signed else ".4f"
    ends = f"{interval.low:{form}} to {interval.high:{form}}" if interval.n > 1 else "-"
    return [f"{interval.mean:{form}}", ends, str(interval.n)]


def _balanced_accuracies(results: Sequence[Result]) -> list[str]:
    """The dotted names of the students' balanced accuracies that are worth showing beside accuracy."""
    found: dict[str, None] = {}
    for result in results:
        for target, scores in (result.scores.get("student") or {}).items():
            if isinstance(scores, Mapping) and rare_classes.imbalanced(scores):
                found[f"student.{target}.balanced_accuracy"] = None
    return list(found)


def _never_predicted(results: Sequence[Result]) -> str:
    """For each variant the classes of the scored split that its students never predict, and in how many runs."""
    texts = []
    for variant, group in _by_variant(results).items():
        counts = collections.Counter(
            f"{target} {name}"
            for result in group
            for target, scores in (result.scores.get("student") or {}).items()
            if isinstance(scores, Mapping)
            for name in rare_classes.never_predicted(scores)
        )
        if counts:
            texts.append(f"{variant}: {excerpt(f'{name} ({runs} of {len(group)})' for name, runs in counts.items())}")
    return f"Classes that a student never answers (in how many runs): {'; '.join(texts)}." if texts else ""


def _notes(results: Sequence[Result], metric: str, per_seed: Sequence[str], per_fold: Sequence[str]) -> list[str]:
    if per_fold:
        notes = [
            "Intervals are Student's t over folds (n), each the mean over its seeds: runs of one fold share their test "
            f"examples and are not independent. A seed sets {', '.join(per_seed)}, a fold {', '.join(per_fold)}. The "
            "folds' training sets overlap, which an interval does not cover."
        ]
    else:
        notes = [
            f"Intervals are Student's t over seeds. A seed sets {', '.join(per_seed)}; an interval covers the "
            "variation that this causes and no other."
        ]
    lost = [f"{result.variant} {result.place}" for result in results if result.value(metric) is None]
    if lost:
        notes.append(f"Left out because the metric is not finite: {', '.join(lost)}.")
    if never := _never_predicted(results):
        notes.append(never)
    counts = [len({result.unit for result in group}) for group in _by_variant(results).values()]
    if counts and min(counts) < 5:
        notes.append(f"Some variants have fewer than 5 {'folds' if per_fold else 'seeds'}: too few to compare them.")
    return notes
