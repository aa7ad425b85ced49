"""The teachers' weights: over the steps of a run, and by phase and class."""

import math

from emokd.reporting.drawing.curve import draw_curves
from emokd.reporting.drawing.svg import colour, shortened
from emokd.reporting.page.blocks import Block, Grid, Panels
from emokd.reporting.page.curves import WEIGHT, series
from emokd.reporting.run_files import Missing, RunFiles, mapping
from emokd.reporting.scoreboard import weight_tables


def blocks(run: RunFiles) -> list[Block]:
    """The curve, where the log has weights, and a table for each phase.

    Raises:
      Missing: neither is recorded.
    """
    found: list[Block] = []
    over_time = {
        name.removeprefix(WEIGHT): points for name, points in series(run.records).items() if name.startswith(WEIGHT)
    }
    if over_time:
        drawing = draw_curves("mean weight of each teacher", over_time, run.phases(), limits=(-0.02, 1.02))
        keys = [(f"line {colour(i)}", shortened(name, 40)) for i, name in enumerate(over_time)]
        found.append(Panels([drawing], keys))
    for table in weight_tables(mapping(run.scores.get("weights"))):
        shares = [[None if cell == "-" else min(max(float(cell), 0.0), 1.0) for cell in row[1:]] for row in table.rows]
        shares = [[None if share is None or math.isnan(share) else share for share in row] for row in shares]
        found.append(Grid(table, shares=shares, folded=False))
    if not found:
        raise Missing("No weights of teachers are recorded.")
    return found
