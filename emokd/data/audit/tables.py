"""Counts of a data set's examples as a table of text."""

from collections.abc import Mapping, Sequence

import numpy as np

from emokd.data.audit.published import published_total
from emokd.data.division.strata import find_strata
from emokd.data.examples import Examples


def count_table(source: str, examples: Examples, parts: Mapping[str, np.ndarray]) -> str:
    """Examples by class (or third of valence) and split, beside the published numbers and the mean valence and arousal.

    Args:
      source: the set's name, by which published counts are looked up.
      examples: the whole set.
      parts: indices of each split's examples; examples in no split are counted as "left out".
    """
    strata, names = find_strata(examples)
    taken = np.isin(np.arange(len(examples)), np.concatenate([*parts.values(), np.zeros(0, np.int64)]))
    columns = {**parts, "left out": np.flatnonzero(~taken)}
    if not len(columns["left out"]):
        del columns["left out"]
    classes = examples.classes.get("expression", ())
    published = [published_total(source, classes[i]) if i < len(classes) else None for i in range(len(names))]
    affect = examples.columns.get("valence_arousal")
    header = ["class", *columns, "all"]
    header += ["published"] if any(count is not None for count in published) else []
    header += ["valence", "arousal"] if affect is not None else []
    rows = []
    for stratum, name in enumerate(names):
        members = np.flatnonzero(strata == stratum)
        if not len(members) and stratum >= len(classes):
            continue
        row = [classes[stratum] if stratum < len(classes) else name]
        row += [str(np.isin(members, places).sum()) for places in columns.values()]
        row.append(str(len(members)))
        if "published" in header:
            row.append("" if published[stratum] is None else str(published[stratum]))
        if affect is not None:
            row += [_mean(affect[members, side]) for side in (0, 1)]
        rows.append(row)
    rows.append(["all", *(str(len(places)) for places in columns.values()), str(len(examples))])
    return _aligned([header, *rows])


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean(dtype=np.float64):+.2f}" if len(finite) else ""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text with columns of equal width: the first aligned to the left, the others to the right."""
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width[i]) if i == 0 else cell.rjust(width[i]) for i, cell in enumerate(row)).rstrip()
        for row in rows
    )
