"""All numbers of scores.json, and where this page comes from."""

import json

from emokd.reporting.page.blocks import Block, Grid
from emokd.reporting.provenance import provenance
from emokd.reporting.run_files import RunFiles
from emokd.reporting.scoreboard import flatten_scores, named_networks, variant_tables
from emokd.reporting.table import Table


def all_scores(run: RunFiles) -> list[Block]:
    """Scores with fewer modalities, every score of every network, and the facts about them.

    Raises:
      Missing: there are no scores.
    """
    scores = run.require_scores()
    found = {name: flatten_scores(values) for name, values in named_networks(scores).items()}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [[name, *(f"{values[name]:.6g}" if name in values else "-" for values in found.values())] for name in names]
    rest = {name: value for name, value in scores.items() if name not in ("student", "baseline", "teachers", "weights")}
    facts = [[name, json.dumps(value, ensure_ascii=False)] for name, value in rest.items()]
    blocks: list[Block] = [Grid(table, folded=False) for table in variant_tables(scores)]
    blocks.append(Grid(Table(["score", *found], rows), label="Every score", folded=True, summary=f"{len(rows)} scores"))
    if facts:
        blocks.append(
            Grid(Table(["about them", ""], facts), label="About the scores", folded=True, summary="About them")
        )
    return blocks


def about() -> list[Block]:
    """Where and when the page was written."""
    rows = [[name, value] for name, value in provenance().items()]
    note = "Where and when this page was written; the run itself may be older and of another machine."
    return [Grid(Table(["what", "value"], rows, notes=[note]), label="About this report", folded=False)]
