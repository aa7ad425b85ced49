"""Scores of each group of examples: for whom a student works, and for whom it does not. [ours]

A group is what a column names: people's sex or age band, a camera, a subject.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from emokd.data.examples import Examples
from emokd.data.tables.table import Row, read_table
from emokd.errors import InputError, excerpt, nearest
from emokd.names import look_alikes, normal_path
from emokd.reporting.page.verdict import wilson
from emokd.training import evaluation

OWN = "group"
NOT_STATED = "(not stated)"
MOST_GROUPS = 100

_KEYS = ("key", "path")
_SUBJECTS = ("subject", "group")


def read_groups(examples: Examples, by: str) -> np.ndarray:
    """The group of each example.

    Args:
      examples: N examples.
      by: "group" for the data set's own groups (subjects, say), or TABLE:COLUMN. The table's column `key` or `path`
        holds the examples' names, or its column `subject` or `group` the data set's own groups; COLUMN holds what is
        asked for. A column `id` is not read: in one table it counts examples, in the next people.

    Returns:
      Texts [N], `NOT_STATED` where the table has no row or an empty cell; the log counts these.

    Raises:
      InputError: the data set has no groups; the table, or a column, is not there; it contradicts itself; it says
        nothing about any of the examples; or there are more than 100 groups.
    """
    if by == OWN:
        own = examples.require_groups().astype(str)
        _check_count(len(set(own.tolist())), f"{examples.name} has", "--by=TABLE.csv:COLUMN joins them to fewer groups")
        return own
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
    keyed = name in _KEYS
    names = [str(each) for each in (examples.keys if keyed else examples.require_groups())]
    stated = _stated(rows, name, column)
    absent = sorted({each for each in names if each not in stated})
    if len(absent) == len(set(names)):
        raise InputError(
            f"{path}: column {name!r} holds {excerpt(list(stated), 3)}, but {examples.name} has {excerpt(absent, 3)}. "
            "Write the names as the data set does."
        )
    groups = [stated.get(each, "") for each in names]
    if not any(groups):
        raise InputError(f"{path}: column {column!r} is empty for all {len(names)} examples. Fill it in.")
    for alike in look_alikes(filter(None, groups)):
        logging.warning("%s: %s are scored as different groups. Write one of them if one is meant.", by, excerpt(alike))
    _check_count(len(set(filter(None, groups))), f"{path}: column {column!r} holds", "Write bands, such as 18-30")
    if missing := groups.count(""):
        reasons = f"{len(absent)} names are not in the table ({excerpt(absent, 3)})" if absent else "empty cells"
        logging.warning(
            "%s says nothing about %d of %d examples, %s: %s.", by, missing, len(names), NOT_STATED, reasons
        )
    return np.array([group or NOT_STATED for group in groups])


def _check_count(count: int, where: str, remedy: str) -> None:
    if count > MOST_GROUPS:
        raise InputError(f"{where} {count} groups, more than {MOST_GROUPS}. {remedy}.")


def _stated(rows: Sequence[Row], name: str, column: str) -> dict[str, str]:
    """What the table says of each name; nothing where the cell is empty."""
    stated: dict[str, str] = {}
    for row in rows:
        whom = normal_path(row.text(name)) if name == "path" else row.text(name)
        value = "" if row.missing(column) else row.name(column)
        above = stated.setdefault(whom, value)
        if above != value:
            raise row.error(f"{whom!r} is {value!r} here and {above!r} above", "Correct one of the two.")
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
