"""The first screen: what the run says, in sentences and in its scoreboard."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emokd.reporting.page.blocks import Block, Grid, Text
from emokd.reporting.run_files import RunFiles, mapping
from emokd.reporting.scoreboard import (
    accepted_texts,
    column_name,
    headline_scores,
    higher_is_better,
    named_networks,
    score_table,
)

Z = 1.959963984540054
"""Of a 95% interval."""


def facts(run: RunFiles) -> list[str]:
    """Recipe, data, seed and state, a few words each."""
    config, data = run.config, mapping(run.config.get("data"))
    found = [f"recipe {config['recipe']}"] if config.get("recipe") else []
    found += [f"data {data['source']}"] if data.get("source") else []
    found += [f"seed {config['seed']}"] if "seed" in config else []
    found.append("finished" if run.scores else "not finished")
    return found


def notices(run: RunFiles, remarks: Sequence[str]) -> list[Block]:
    """What must be known before any number: synthetic pictures, accepted changes of the data, and `remarks`."""
    found: list[Block] = []
    if "painter" in _sources(mapping(run.config.get("data"))):
        found.append(
            Text(
                "The pictures are synthetic (the embedded face painter). These numbers show that the program works; "
                "they are no evidence about real faces or about any paper.",
                "synthetic",
            )
        )
    changes = run.scores.get("accepted_changes")
    texts = [*(accepted_texts(changes) if isinstance(changes, list) else ()), *remarks]
    return [*found, *(Text(text, "missing") for text in dict.fromkeys(texts))]


def _sources(data: Mapping[str, Any]) -> set[str]:
    """The names of the data set and of the sets that it combines."""
    parts = mapping(data.get("options")).get("sources")
    named = [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    return {str(part.get("source", "")) for part in (data, *named)}


def blocks(run: RunFiles) -> list[Block]:
    """The verdict, and the scoreboard below it.

    Raises:
      Missing: there are no scores, and no step either.
    """
    if not run.scores and run.records:
        return [Text(_on_the_way(run), "verdict"), Text(run.problems["scores.json"], "missing")]
    scores = run.require_scores()
    table = score_table(scores)
    return [Text(sentence(scores, run.config), "verdict"), Grid(table, best=_best(scores), folded=False)]


def sentence(scores: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The verdict: the student's main score, beside the same network on labels alone and the best teacher.

    The main score is the one by which the run picks its best step, where the scoreboard has it, else the scoreboard's
    first. A share of right answers is given with Wilson's 95% interval: how well this many examples tell it. The
    interval knows nothing of other seeds.
    """
    found = {name: headline_scores(entry) for name, entry in named_networks(scores).items()}
    own = {name: value for name, value in found.pop("student").items() if math.isfinite(value)}
    if not own:
        return "The student has no score."
    wanted = str(mapping(config.get("select")).get("metric", "")).replace("/", ".")
    column = wanted if wanted in own else next(iter(own))
    value, upward = own[column], higher_is_better(column)
    told = f"{_capital(column_name(column, with_target=False))} of the student: {value:.4f}"
    count = _count(scores, column)
    low, high = wilson(value, count) if count and column.endswith(".accuracy") else (value, value)
    if count and column.endswith(".accuracy"):
        told += f" (of {count} examples; 95% interval {low:.3f} to {high:.3f})"
    rivals = {name: values[column] for name, values in found.items() if math.isfinite(values.get(column, math.nan))}
    parts = []
    if "labels alone" in rivals:
        alone = rivals.pop("labels alone")
        parts.append(
            _beside(value - alone, upward, low <= alone <= high and low < high, "the same network on labels alone")
        )
    if rivals:
        best = (max if upward else min)(rivals, key=lambda name: rivals[name])
        parts.append(
            _beside(value - rivals[best], upward, low <= rivals[best] <= high and low < high, f"the best, {best}")
        )
    return f"{told}{''.join(f'; {part}' for part in parts)}. One run."


def _beside(gap: float, upward: bool, within: bool, whom: str) -> str:
    if gap == 0:
        return f"the same as {whom}"
    better = (gap > 0) == upward
    doubt = ", which so few examples do not tell apart" if within else ""
    return f"{abs(gap):.4f} {'better' if better else 'worse'} than {whom}{doubt}"


def _count(scores: Mapping[str, Any], column: str) -> int:
    count = mapping(mapping(scores.get("student")).get(column.split(".")[0])).get("count")
    return count if isinstance(count, int) else 0


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `count` examples (Wilson, 1927)."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return middle - half, middle + half


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _best(scores: Mapping[str, Any]) -> frozenset[tuple[int, int]]:
    """The cells of the best network of each score."""
    found = [headline_scores(entry) for entry in named_networks(scores).values()]
    columns = list(dict.fromkeys(column for values in found for column in values))
    best = set()
    for place, column in enumerate(columns, 1):
        known = {row: values[column] for row, values in enumerate(found) if math.isfinite(values.get(column, math.nan))}
        if len(known) > 1:
            best.add(((max if higher_is_better(column) else min)(known, key=lambda row: known[row]), place))
    return frozenset(best)


def _on_the_way(run: RunFiles) -> str:
    """How far a run has come that has no scores yet."""
    last = run.records[-1]
    told = f"Still training, or stopped: {last['phase']}, step {last['step']}"
    metric = f"validation/{mapping(run.config.get('select')).get('metric', '')}"
    scored = [(record[metric], record["step"]) for record in run.records if math.isfinite(record.get(metric, math.nan))]
    if scored:
        value, step = (max if higher_is_better(metric) else min)(scored)
        told += f"; best {metric} {value:.4f}, at step {step}"
    return f"{told}."
