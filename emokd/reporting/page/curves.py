"""Curves of a run: losses, scores on validation, and what else its log has, phase by phase."""

from collections.abc import Iterable, Mapping, Sequence

from emokd.errors import excerpt
from emokd.reporting.drawing.curve import POINTS, draw_curves
from emokd.reporting.metrics_log import RESERVED, Record
from emokd.reporting.page.blocks import Block, Grid, Heading, Panels, Text
from emokd.reporting.page.speed import COMPILED, MEASURED
from emokd.reporting.run_files import Missing, RunFiles
from emokd.reporting.scoreboard import headline
from emokd.reporting.table import Table

PANELS = 24
"""Most panels of one kind; the report names the metrics that it leaves out."""

WEIGHT = "weight/"
"""The beginning of the names of teachers' mean weights in the log."""

Series = dict[str, list[tuple[int, float]]]


def blocks(run: RunFiles) -> list[Block]:
    """Training and validation.

    Raises:
      Missing: nothing is recorded.
    """
    if not run.records:
        raise Missing("There is no metrics.jsonl, or no line in it: no curves.")
    phases = run.phases()
    found = series(run.records)
    scored = {name: points for name, points in found.items() if name.startswith("validation/")}
    others = [name for name in found if name not in scored and not name.startswith(WEIGHT)]
    training = {name: found[name] for name in sorted(others, key=lambda name: not name.startswith("loss"))}
    chosen = {name: points for name, points in scored.items() if headline(name.replace("/", "."))}
    result: list[Block] = [
        Grid(
            Table(
                ["phase", "from step", "to step"],
                [[f"{i} {name}", str(begin), str(end)] for i, (name, begin, end) in enumerate(phases, 1)],
                title="Phases in order",
            ),
            folded=False,
        )
    ]
    for heading, drawn, everything in (("Training", training, training), ("Validation", chosen or scored, scored)):
        shown = dict(list(drawn.items())[:PANELS])
        result.append(Heading(heading))
        if shown:
            result.append(Panels([draw_curves(name, {name: points}, phases) for name, points in shown.items()]))
            result.append(_ends(shown))
        else:
            result.append(Text("None recorded.", "missing"))
        left_out = [name for name in everything if name not in shown]
        if left_out:
            result.append(Text(f"Not drawn: {excerpt(left_out)}.", "quiet"))
    if any(len(points) > POINTS for points in found.values()):
        result.append(Text(f"Of longer lines about {POINTS} points a phase are drawn; metrics.jsonl has all.", "quiet"))
    return result


def series(records: Sequence[Record]) -> Series:
    """(step, value) of every metric that is no measurement of speed, by name."""
    found: Series = {}
    for record in records:
        for name, value in record.items():
            if name not in (*RESERVED, *COMPILED, *MEASURED):
                found.setdefault(name, []).append((record["step"], value))
    return found


def _ends(shown: Mapping[str, Iterable[tuple[int, float]]]) -> Grid:
    """The curves in numbers: first, last, lowest and highest values."""
    rows = []
    for name, points in shown.items():
        values = [value for _, value in points]
        finite = [value for value in values if value == value] or [float("nan")]
        rows.append([name, *(f"{value:.5g}" for value in (values[0], values[-1], min(finite), max(finite)))])
    table = Table(["metric", "first", "last", "lowest", "highest"], rows)
    return Grid(table, label="The curves in numbers", folded=True, summary="The curves in numbers")
