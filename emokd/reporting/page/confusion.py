"""The student's confusion matrices, as tables whose cells are shaded by the share of the true class."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emokd.reporting.page.blocks import Block, Grid, Heading, Text
from emokd.reporting.run_files import Missing, RunFiles, mapping
from emokd.reporting.table import Table


def blocks(run: RunFiles) -> list[Block]:
    """A table for each classifying target.

    Raises:
      Missing: there is none.
    """
    found: list[tuple[str, Mapping[str, Any], np.ndarray]] = []
    for target, values in mapping(run.require_scores().get("student")).items():
        for name, matrix in mapping(values).items():
            if name.startswith("confusion"):
                found.append((target, values, np.asarray(matrix, float)))
    if not found:
        raise Missing("The student's scores hold no confusion matrix.")
    result: list[Block] = []
    for target, values, matrix in found:
        result.append(Heading(target))
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or not np.isfinite(matrix).all():
            text = (
                f"The confusion matrix of {target} has the shape {list(matrix.shape)}, or entries that are no counts."
            )
            result.append(Text(text, "missing"))
            continue
        result.append(_table(target, matrix, class_names(run, target, values, len(matrix))))
    return result


def _table(target: str, counts: np.ndarray, classes: list[str]) -> Grid:
    totals = counts.sum(1, keepdims=True)
    shares = np.clip(counts / np.maximum(totals, 1e-12), 0, 1).tolist()
    rows = [
        [name, *(f"{value:g}" for value in np.round(row, 1)), f"{share[place]:.0%}" if total else "-"]
        for place, (name, row, share, (total,)) in enumerate(zip(classes, counts, shares, totals, strict=True))
    ]
    title = f"Confusion matrix of the student: {target}"
    note = "Rows are true classes, columns predicted ones; cells are counts, shaded by their share of the true class."
    table = Table(["true \\ predicted", *classes, "recall"], rows, title=title, notes=[note])
    return Grid(table, shares=[[*row, None] for row in shares], folded=False)


def class_names(run: RunFiles, target: str, values: Mapping[str, Any], count: int) -> list[str]:
    """The names of a target's classes: of the scores, else of the stored student, else their numbers."""
    stored = mapping(run.spec.get("classes")).get(target)
    for names in (values.get("classes"), stored):
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
    return [str(index) for index in range(count)]
