"""Pictures listed in a table: `path` with `label`, `valence` and `arousal`, or a column of votes per class."""

import glob
import os
from collections.abc import Mapping, Sequence

from emokd.data.examples import Examples
from emokd.data.files.store import open_files
from emokd.data.pictures import check_options, class_options, find_pictures, picture_examples, report_unused
from emokd.data.tables.table import check_columns, read_table
from emokd.data.tables.targets import read_groups, read_splits, read_targets
from emokd.errors import InputError, excerpt

TABLE = "labels.csv"


def load(
    directory: str,
    options: Mapping,
    *,
    name: str = "manifest",
    classes: Sequence[str] | None = None,
    targets: bool = True,
) -> Examples:
    """Loads pictures by a table beside them.

    The table has a column `path` (relative to `images/`, `images.zip` or the directory) and one or more of:
    `label` (a class name, or, where a class list is given, an id); `valence` and `arousal` in [-1, 1]; one column
    of non-negative votes per class of the given class list. Optional: `split` (train, validation or test) and `group`
    or `subject` (the person, or the video or photograph that the picture is from). An empty cell of a target is an
    example without it (see `targets`): it is counted in the log.

    Args:
      directory: the folder that holds the table, or the table itself.
      options: `table` (default: `labels.csv`, else the folder's only table), `classes` (a list in the order of the
        ids; default: the labels in sorted order), `min_side` (see `picture_examples`).
      name: the data set's name, for messages.
      classes: default of `options.classes`.
      targets: whether there must be any, and whether they are read.

    Raises:
      InputError: the table or a picture is missing, or a row is wrong; the message names the file and the line.
    """
    check_options(name, options, ("table", "classes"))
    directory, table = _find_table(directory, options)
    rows = read_table(table)
    if "pixels" in rows[0].cells and "path" not in rows[0].cells:
        raise InputError(
            f"{table}, line 1: the column 'pixels' holds the pictures, as in fer2013.csv, and there is none of paths. "
            "Set config.data.source to 'fer2013'."
        )
    check_columns(rows, ("path",))
    files = open_files(directory)
    names = find_pictures(files, rows)
    listed = class_options(options, classes)
    wanted = bool(options.get("classes"))
    columns, class_lists = read_targets(name, rows, listed, wanted=wanted) if targets else ({}, {})
    report_unused(name, files, names)
    return picture_examples(
        name,
        files,
        names,
        columns,
        class_lists,
        options,
        splits=read_splits(rows),
        groups=read_groups(name, rows, "group"),
    )


def _find_table(directory: str, options: Mapping) -> tuple[str, str]:
    option = options.get("table")
    if option:
        return directory, os.path.join(directory, str(option))
    if os.path.isfile(directory) and not directory.endswith(".zip"):
        return os.path.dirname(directory) or ".", directory
    if os.path.isfile(os.path.join(directory, TABLE)):
        return directory, os.path.join(directory, TABLE)
    tables = sorted(glob.glob(os.path.join(glob.escape(directory), "*.csv")))
    if len(tables) == 1:
        return directory, tables[0]
    tables_there = f"there are {excerpt(map(os.path.basename, tables), 5)}" if tables else "there is no .csv file"
    raise InputError(f"{directory} has no {TABLE}; {tables_there}. Name the table in config.data.options.table.")
