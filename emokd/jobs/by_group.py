"""Scores of each group of examples: for whom a student works, and for whom it does not. [ours]

A group is what a column names: people's sex or age band, a camera, a subject.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.examples import Examples
from emokd.data.tables.table import Row, read_table
from emokd.errors import InputError, excerpt, nearest
from emokd.reporting.page.verdict import wilson
from emokd.training import evaluation

OWN = "group"
NOT_STATED = "(not stated)"
MOST_GROUPS = 100

_KEYS = ("key", "path", "id")
_SUBJECTS = ("group", "subject")


def read_groups(examples: Examples, by: str) -> np.ndarray:
    """The group of each example.

    Args:
      examples: N examples.
      by: "group" for the data set's own groups (subjects, say), or TABLE:COLUMN. The table's column `key`, `path` or
        `id` holds the examples' names, or its column `group` or `subject` the data set's own groups; COLUMN holds what
        is asked for.

    Returns:
      Texts [N], `NOT_STATED` where the table has no row or an empty cell; the log counts these.

    Raises:
      InputError: the data set has no groups; the table, or a column, is not there; it contradicts itself; it is of
        none of the examples; or COLUMN has more than 100 values.
    """
    if by == OWN:
        return np.array(examples.require_groups())
    path, separator, column = by.rpartition(":")
    if not (separator and path and column):
        raise InputError(f"--by is {by!r}; give 'group' for the data set's own groups, or TABLE.csv:COLUMN.")
    rows = read_table(path)
    header = list(rows[0].cells)
    if column not in header:
        raise InputError(f"{path} has no column {column!r}.{nearest(column, header)} It has {', '.join(header)}.")
    name = next((each for each in (*_KEYS, *_SUBJECTS) if each in header and each != column), None)
    if name is None:
        raise InputError(
            f"{path} does not say whom its rows are about. Give it a column 'key' with the examples' names, such as "
            f"{examples.keys[0]!r}, or 'subject' with the data set's subjects."
        )
    names = examples.keys if name in _KEYS else examples.require_groups().tolist()
    stated = _stated(rows, name, column)
    groups = [stated.get(each, "") for each in names]
    if not any(groups):
        raise InputError(
            f"{path}: column {name!r} holds {excerpt(list(stated), 3)}, but {examples.name} has "
            f"{excerpt(sorted(set(names)), 3)}. Write the names as the data set does."
        )
    count = len(set(groups))
    if count > MOST_GROUPS:
        raise InputError(f"{path}: column {column!r} has {count} values. Write bands, such as 18-30.")
    if missing := groups.count(""):
        logging.warning("%s says nothing about %d of %d examples: %s.", by, missing, len(groups), NOT_STATED)
    return np.array([group or NOT_STATED for group in groups])


def _stated(rows: Sequence[Row], name: str, column: str) -> dict[str, str]:
    """What the table says of each name; nothing where the cell is empty."""
    stated: dict[str, str] = {}
    for row in rows:
        value = "" if row.missing(column) else row.name(column)
        above = stated.setdefault(row.text(name), value)
        if above != value:
            raise row.error(f"{row.text(name)!r} is {value!r} here and {above!r} above", "Correct one of the two.")
    return stated


def score(
    predictions: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    classes: Mapping[str, tuple[str, ...]],
    examples: Examples,
    groups: np.ndarray,
) -> dict[str, dict]:
    """Scores the student's predictions on each group.

    Args:
      predictions: by target, of M rows, as `evaluation.collect` gives them.
      columns: targets, `id` and `check` of the same rows.
      classes: of each target.
      examples: those that the rows are of, in any order.
      groups: of each of the examples.

    Returns:
      By group, in sorted order: `examples`, and by target the scores; a target with `accuracy` also has
      `accuracy_interval`, Wilson's at 95%.
    """
    places = {pair: i for i, pair in enumerate(zip(examples.ids.tolist(), examples.checks.tolist(), strict=True))}
    rows = zip(columns["id"].tolist(), columns["check"].tolist(), strict=True)
    of_rows = groups[[places[pair] for pair in rows]]
    found: dict[str, dict] = {}
    for group in sorted(set(of_rows.tolist())):
        chosen = of_rows == group
        scores = evaluation.score(
            {"student": {target: values[chosen] for target, values in predictions.items()}},
            {name: values[chosen] for name, values in columns.items()},
            classes,
        )["student"]
        for entry in scores.values():
            if "accuracy" in entry:
                entry["accuracy_interval"] = list(wilson(entry["accuracy"], entry["count"]))
        found[group] = {"examples": int(chosen.sum()), **scores}
        logging.info("%s: %s", group, _in_words(found[group]))
    return found


def _in_words(entry: Mapping) -> str:
    said = [f"{entry['examples']} examples"]
    for target, scores in entry.items():
        if isinstance(scores, Mapping) and "accuracy" in scores:
            low, high = scores["accuracy_interval"]
            said.append(f"{target} accuracy {scores['accuracy']:.3f} (95% {low:.3f} to {high:.3f})")
    return ", ".join(said)
