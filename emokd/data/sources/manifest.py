"""Pictures listed in a table: `path` with `label`, `valence` and `arousal`, or a column of votes per class."""

import glob
import os
from collections.abc import Mapping, Sequence

import numpy as np

from emokd.data.examples import Examples
from emokd.data.files import open_files
from emokd.data.pictures import check_options, class_options, find_pictures, picture_examples, report_unused
from emokd.data.splits import normalise_split
from emokd.data.tables import Row, read_table, unique
from emokd.errors import InputError, excerpt

TABLE = "labels.csv"


def load(directory: str, options: Mapping, *, name: str = "manifest", classes: Sequence[str] | None = None) -> Examples:
    """Loads pictures by a table beside them.

    The table has a column `path` (relative to `images/`, `images.zip` or the directory) and one or more of:
    `label` (a class name, or, where a class list is given, an id); `valence` and `arousal` in [-1, 1]; one column
    of non-negative votes per class of the given class list (a row without votes is unlabelled). Optional:
    `split` (train, validation or test) and `group` (the subject, or the video or photograph that the picture is from).

    Args:
      directory: the folder that holds the table, or the table itself.
      options: `table` (default: `labels.csv`, else the only table there), `classes` (a list in the order of the
        ids; default: the labels in sorted order), `min_side` (see `picture_examples`).
      name: the data set's name, for messages.
      classes: default of `options.classes`.

    Raises:
      InputError: the table or a picture is missing, or a row is wrong; the message names the file and the line.
    """
    check_options(name, options, ("table", "classes"))
    directory, table = _find_table(directory, options)
    rows = read_table(table, required=("path",))
    header = rows[0].cells
    unique(rows, "path")
    files = open_files(directory)
    names = find_pictures(files, rows)
    columns: dict[str, np.ndarray] = {}
    class_lists: dict[str, Sequence[str]] = {}
    listed = class_options(options, classes)
    if "label" in header:
        columns["expression"], class_lists["expression"] = _labels(rows, listed)
    elif listed and all(label in header for label in listed):
        columns["votes"], class_lists["expression"] = _votes(rows, listed), listed
    if "valence" in header and "arousal" in header:
        columns["valence_arousal"] = np.array(
            [[row.number("valence", -1, 1), row.number("arousal", -1, 1)] for row in rows], np.float32
        )
    if not columns:
        raise InputError(
            f"{table}, line 1: no targets. It needs a column 'label', or 'valence' and 'arousal', or one column of "
            f"votes per class of config.data.options.classes. It has: {excerpt(header)}."
        )
    report_unused(name, files, names)
    return picture_examples(
        name,
        files,
        names,
        columns,
        class_lists,
        options,
        splits=_splits(rows) if "split" in header else None,
        groups=[row.text("group") for row in rows] if "group" in header else None,
    )


def _find_table(directory: str, options: Mapping) -> tuple[str, str]:
    given = options.get("table")
    if given:
        return directory, os.path.join(directory, str(given))
    if os.path.isfile(directory) and not directory.endswith(".zip"):
        return os.path.dirname(directory) or ".", directory
    if os.path.isfile(os.path.join(directory, TABLE)):
        return directory, os.path.join(directory, TABLE)
    tables = sorted(glob.glob(os.path.join(glob.escape(directory), "*.csv")))
    if len(tables) == 1:
        return directory, tables[0]
    found = f"there are {excerpt(map(os.path.basename, tables), 5)}" if tables else "there is no .csv file"
    raise InputError(f"{directory} has no {TABLE}; {found}. Name the table in config.data.options.table.")


def _labels(rows: Sequence[Row], listed: Sequence[str] | None) -> tuple[np.ndarray, Sequence[str]]:
    if listed is None:
        texts = {row.text("label") for row in rows}
        numeric = all(text.isdecimal() for text in texts)
        classes = tuple(sorted(texts, key=int) if numeric else sorted(texts))
        return np.array([row.choice("label", classes) for row in rows], np.int32), classes
    by_id = {str(i): label for i, label in enumerate(listed) if str(i) not in listed}
    labels = []
    for row in rows:
        text = row.text("label")
        labels.append(list(listed).index(by_id[text]) if text in by_id else row.choice("label", listed))
    return np.array(labels, np.int32), tuple(listed)


def _votes(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    votes = np.array([[row.number(label, low=0) for label in classes] for row in rows], np.float64)
    total = votes.sum(axis=1, keepdims=True)
    return np.divide(votes, total, out=np.zeros_like(votes), where=total > 0).astype(np.float32)


def _splits(rows: Sequence[Row]) -> list[str]:
    splits = []
    for row in rows:
        split = normalise_split(row.text("split"))
        if split is None:
            raise row.error(f"there is no split {row.text('split')!r}", "Use train, validation or test.")
        splits.append(split)
    return splits
