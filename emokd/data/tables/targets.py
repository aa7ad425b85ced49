"""Reads targets from tables: labels, codes, votes, valence, arousal. An empty cell is an example without a target."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from emokd.data.division.splits import normalise_split
from emokd.data.tables.class_list import check_classes
from emokd.data.tables.table import Row, check_optional, has_decimal_comma, is_missing, is_number
from emokd.errors import InputError, excerpt, nearest
from emokd.labels import UNLABELLED
from emokd.names import essence

NO_AFFECT = -2.0
"""The value with which AffectNet marks missing valence or arousal."""

MOST_VOTES = 1e9

_GROUPS = ("group", "subject")
_NUMBERED = ("", "s", "id", "ids", "name", "no", "nr", "number", "code")
_LIKE_GROUPS = frozenset(
    f"{who}{what}"
    for who in (*_GROUPS, *"subj participant person speaker actor patient user identity individual video clip".split())
    for what in _NUMBERED
).union(("pid", "sid", "ppid", "caseid"))
"""Names of columns that may hold groups, by their `essence` without punctuation."""
_PERHAPS_GROUPS = frozenset(
    f"{what}{number}"
    for what in "recording session photo movie scene dialogue sourceimage frameof child".split()
    for number in _NUMBERED
)
"""Likewise, but with one or two values in a table they are a condition, such as indoors and outdoors."""

_LIKE_LABELS = frozenset(
    f"{word}{end}" for word in ("label", "emotion", "expression", "class") for end in ("", "s", "es")
)
"""Names of columns that may hold labels, by their `essence`."""

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NO_NAME = re.compile(r"[?.*/\\_~-]+")


def read_labels(
    name: str, rows: Sequence[Row], listed: Sequence[str] | None, column: str = "label"
) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """The class of each row, by name or by code. [ours]

    A cell without a value (`table.is_missing`) is unlabelled, unless the class list has its text; the log counts them.
    Without a class list the classes are the names in sorted order, or the codes in order of their numbers; `3`, `3.0`,
    `03` and `3e0` are one code, and codes below 0 give a warning. With a list a cell is one of its names or, if none of
    them is a number, an index into the list, from 0.

    Args:
      name: the data set's name, for the log.
      rows: the table's rows.
      listed: the class list, in `names.normal` form.
      column: the column that holds the labels.

    Returns:
      int32 ids, UNLABELLED where there is none; and the classes.

    Raises:
      InputError: no row has a label; a label is not in the list, a fraction, or a mark such as `?`; names and codes
        are mixed without a list; names differ in letter case, spaces or invisible characters alone. The message names
        the line.
    """
    texts = [row.name(column) for row in rows]
    marks = Counter(text for text in texts if is_missing(text) and text not in (listed or ()))
    first = {text: row for text, row in zip(reversed(texts), reversed(rows), strict=True) if text not in marks}
    if not first:
        raise rows[0].error(f"column {column!r} is empty, as in all rows", "Label some examples, or drop the column.")
    numbers = {text: number for text in first if (number := _whole(text)) is not None}
    if listed is None:
        classes, ids = _own_classes(column, first, numbers)
    else:
        classes, ids = tuple(listed), _listed_ids(column, first, numbers, listed)
    if listed is None and numbers and min(numbers.values()) < 0:
        below = Counter(numbers[text] for text in texts if numbers.get(text, 0) < 0)
        logging.warning(
            "%s: codes below 0 are classes like the others: %s. If that means no label, leave these cells empty.",
            name,
            ", ".join(f"{code} ({count} rows)" for code, count in sorted(below.items())),
        )
    spellings = sorted(text for text, number in numbers.items() if text != str(number))
    if spellings:
        logging.info("%s: codes written as %s are read as whole numbers.", name, excerpt(spellings, 3))
    if marks:
        said = ", ".join(f"{count} {mark!r}" if mark else f"{count} empty" for mark, count in sorted(marks.items()))
        logging.info("%s: %d of %d rows have no %s (%s).", name, marks.total(), len(rows), column, said)
    return np.array([UNLABELLED if text in marks else ids[text] for text in texts], np.int32), classes


def _whole(text: str) -> int | None:
    """The code (a whole number) in a cell, or None where it is none."""
    if _WHOLE.fullmatch(text):
        return int(text.split(".")[0])
    if is_number(text) and float(text).is_integer():  # 3e0, as numpy.savetxt writes it
        return int(float(text))
    return None


def _own_classes(
    column: str, first: Mapping[str, Row], numbers: Mapping[str, int]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes as the labels define them, without a list, and the id of each label."""
    for text, row in first.items():
        if is_number(text) and text not in numbers:
            raise row.error(
                f"column {column!r} holds {text}, a fraction, which is no code of a class",
                "Round it, or name the classes in config.data.options.classes.",
            )
        if has_decimal_comma(text):
            raise row.error(
                f"column {column!r} holds {text!r}, which is no name of a class",
                f"Write the decimal comma as a point: {text.replace(',', '.')}.",
            )
        if _NO_NAME.fullmatch(text):
            raise row.error(
                f"column {column!r} holds {text!r}, which is no name of a class",
                "If it means no label, leave the cell empty; else name the classes in config.data.options.classes.",
            )
    if not numbers:
        check_classes(
            first, {text: f"line {row.line}" for text, row in first.items()}, next(iter(first.values())).table
        )
        classes = tuple(sorted(first))
        return classes, {text: i for i, text in enumerate(classes)}
    words = [text for text in first if text not in numbers]
    if words:
        code = next(iter(numbers))
        raise first[words[0]].error(
            f"column {column!r} holds the name {words[0]!r}, but the code {code} on line {first[code].line}",
            "Write all as names or all as codes, or give config.data.options.classes.",
        )
    codes = sorted(set(numbers.values()))
    return tuple(map(str, codes)), {text: codes.index(number) for text, number in numbers.items()}


def _listed_ids(
    column: str, first: Mapping[str, Row], numbers: Mapping[str, int], listed: Sequence[str]
) -> dict[str, int]:
    """The id of each label among the classes of a list."""
    places = {label: i for i, label in enumerate(listed)}
    by_number = {number: i for label, i in places.items() if (number := _whole(label)) is not None}
    if not by_number:  # class names that are numbers would be confused with indices
        by_number = {i: i for i in range(len(listed))}
    ids = {}
    for text, row in first.items():
        place = places.get(text, by_number.get(numbers[text]) if text in numbers else None)
        if place is None:
            remedy = f"The classes are {', '.join(listed)}. A cell without a label is left empty."
            if numbers and sorted(set(numbers.values())) == list(range(1, len(listed) + 1)):
                remedy = f"The codes count from 1 to {len(listed)}; a class list counts from 0: take 1 off every code."
            raise row.error(f"column {column!r} holds {text!r}, which is not a class.{nearest(text, listed)}", remedy)
        ids[text] = place
    return ids


def read_codes(rows: Sequence[Row], classes: Sequence[str], column: str) -> Int[np.ndarray, " N"]:
    """Class ids written as the codes 0, 1, ... (also `3.0`); UNLABELLED where the cell has no value.

    Raises:
      InputError: there is no such code; the message names the line and the codes.
    """

    def code(row: Row) -> int:
        if row.missing(column):
            return UNLABELLED
        value = row.number(column)
        if value not in range(len(classes)):
            codes = ", ".join(f"{i} {label}" for i, label in enumerate(classes))
            raise row.error(f"there is no {column} code {row.text(column)}", f"The codes are {codes}.")
        return int(value)

    return np.array([code(row) for row in rows], np.int32)


def read_affect(
    rows: Sequence[Row], columns: Sequence[str] = ("valence", "arousal"), low: float = -1, high: float = 1
) -> Float[np.ndarray, "N 2"]:
    """Valence and arousal in [low, high], float64; NaN where the cell has no value, or AffectNet's -2.

    Raises:
      InputError: a cell is anything else; the message names the line.
    """

    def value(row: Row, column: str) -> float:
        if row.missing(column):
            return np.nan
        if low > NO_AFFECT and is_number(text := row.name(column)) and float(text) == NO_AFFECT:
            return np.nan
        return row.number(column, low, high)

    return np.array([[value(row, column) for column in columns] for row in rows], np.float64)


def read_votes(rows: Sequence[Row], classes: Sequence[str]) -> Float[np.ndarray, "N C"]:
    """The share of each class among the votes of each row, float32; all 0 in a row without votes.

    Raises:
      InputError: a vote is negative, no number or absurdly large, or some cells of a row are empty but not all.
    """
    votes = np.array(
        [
            [0.0] * len(classes)
            if all(row.missing(label) for label in classes)
            else [row.number(label, low=0, high=MOST_VOTES) for label in classes]
            for row in rows
        ]
    )
    largest = votes.max(axis=1, keepdims=True)
    votes = np.divide(votes, largest, out=np.zeros_like(votes), where=largest > 0)  # votes of 1e-320 lose no digits
    total = votes.sum(axis=1, keepdims=True)
    return np.divide(votes, total, out=votes, where=total > 0).astype(np.float32)


def read_targets(
    name: str, rows: Sequence[Row], listed: Sequence[str] | None, *, votes: bool = True, wanted: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """All targets of a table: `label`, else votes by class; `valence` and `arousal`.

    Args:
      name: the data set's name.
      rows: the table's rows.
      listed: the class list.
      votes: whether a column per class of the list holds votes.
      wanted: whether the user gave the list, so that it is an error if the table has no labels and no votes, or votes
        for some of its classes only.

    Returns:
      The columns, as in Examples, and the classes.

    Raises:
      InputError: there is no target at all, one is wrong, or a column's name is written in another letter case; the
        message names columns that may be meant.
    """
    header = list(rows[0].cells)
    table = rows[0].table
    check_optional(rows, ("label", "valence", "arousal", "split", "group", "subject"))
    columns: dict[str, np.ndarray] = {}
    classes: dict[str, tuple[str, ...]] = {}
    voted = [label for label in listed or () if label in header] if votes and "label" not in header else []
    if "label" in header:
        columns["expression"], classes["expression"] = read_labels(name, rows, listed)
    elif listed and len(voted) == len(listed):
        columns["votes"], classes["expression"] = read_votes(rows, listed), tuple(listed)
    elif listed and voted and wanted:
        raise InputError(
            f"{table}, line 1: there are columns of votes for {excerpt(voted)}, but none for "
            f"{excerpt(label for label in listed if label not in voted)}. Add them, or correct the class list. "
            f"It has: {excerpt(header)}."
        )
    meant = "" if classes else _like_labels(header, listed)
    if wanted and not classes and (meant or not {"valence", "arousal"} <= set(header)):
        raise InputError(
            f"{table}, line 1: there is a class list, but no column 'label'{' and none of votes' if votes else ''}."
            f"{meant} Rename the columns, or leave config.data.options.classes out. It has: {excerpt(header)}."
        )
    if "valence" in header and "arousal" in header:
        columns["valence_arousal"] = read_affect(rows).astype(np.float32)
    elif "valence" in header or "arousal" in header:
        logging.warning("%s: valence without arousal, or arousal without valence, is not used.", name)
    for column, values in columns.items():
        if column != "expression" and not (values != 0 if column == "votes" else np.isfinite(values)).any():
            raise InputError(f"{table}: {column} is empty in all rows. Label some examples, or drop the columns.")
    if not columns:
        also = ", or one column of votes per class of config.data.options.classes" if votes else ""
        raise InputError(
            f"{table}, line 1: no targets. It needs a column 'label', or 'valence' and 'arousal'{also}.{meant} "
            f"It has: {excerpt(header)}."
        )
    if meant or (wanted and not classes):
        logging.warning("%s: no classes are read, because %s has no column 'label'.%s", name, table, meant)
    return columns, classes


def _like_labels(header: Sequence[str], listed: Sequence[str] | None) -> str:
    """Says which columns may be meant as labels, or as votes for the classes of the list; empty where none may."""
    alike = _LIKE_LABELS.union(map(essence, listed or ()))
    found = [column for column in header if essence(column) in alike]
    return f" Is it {excerpt(map(repr, found))}?" if found else ""


def read_splits(rows: Sequence[Row]) -> list[str] | None:
    """The split of each row by the column `split`, or None where there is no such column.

    The log names other columns that may hold splits, see `report_split_like`.

    Raises:
      InputError: a cell names no split; the message names the line.
    """
    if "split" not in rows[0].cells:
        report_split_like(rows, "split")
        return None
    splits = []
    for row in rows:
        split = normalise_split(row.text("split"))
        if split is None:
            raise row.error(f"there is no split {row.text('split')!r}", "Use train, validation or test.")
        splits.append(split)
    return splits


def report_split_like(rows: Sequence[Row], column: str) -> None:
    """Warns of columns whose cells all name splits, two or more, in a table without a column of splits.

    Args:
      rows: the table's rows.
      column: the one that splits are read from, for the message.
    """
    found = {}
    for each in rows[0].cells:
        splits = set()
        for row in rows:
            splits.add(normalise_split(row.name(each)))
            if None in splits:
                break
        if None not in splits and len(splits) > 1:
            found[each] = sorted(filter(None, splits))
    for each, named in found.items():
        logging.warning(
            "%s: the column %r names splits (%s), but is not read, so the rows of all of them are mixed. If it is "
            "meant, name it %r.",
            *(rows[0].table, each, ", ".join(named), column),
        )


def read_groups(name: str, rows: Sequence[Row], column: str) -> list[str] | None:
    """The group of each row: the subject, or video, say, whose rows are kept in one split. None without such a column.

    It is read from `column`, or from the other one of `group` and `subject`. The log names other columns that may hold
    groups.

    Args:
      name: the data set's name, for the log.
      rows: the table's rows.
      column: the one of the two that counts where the table has both.

    Raises:
      InputError: a cell has no value; the message names the line.
    """
    header = list(rows[0].cells)
    chosen = next((each for each in (column, *_GROUPS) if each in header), None)
    groups = None if chosen is None else [_group(row, chosen) for row in rows]
    meant = []
    for each in header:
        if each != chosen and may_name_groups(each):
            values = [row.name(each) for row in rows]
            if not may_name_groups(each, len(set(values))):
                continue
            parted = len(set(zip(values, groups or range(len(rows)), strict=True)))
            if parted > len(set(values)):
                meant.append(each)
    if meant:
        logging.warning(
            "%s: %s may name people or recordings, but examples are kept together by %s. Name the column that is meant "
            "%r.",
            *(name, excerpt(map(repr, meant)), f"the column {chosen!r}" if chosen else "none", column),
        )
    return groups


def may_name_groups(name: str, values: int | None = None) -> bool:
    """Whether a column of this name, with so many different values where that is known, may name people or recordings.

    Examples:
      >>> may_name_groups("Participant_ID", 2), may_name_groups("scene", 2), may_name_groups("scene", 30)
      (True, False, True)
    """
    plain = re.sub(r"[\W_]", "", essence(name))
    return plain in _LIKE_GROUPS or (plain in _PERHAPS_GROUPS and (values is None or values > 2))


def _group(row: Row, column: str) -> str:
    value = row.text(column)
    if is_missing(value):
        raise row.error(
            f"column {column!r} holds {value!r}, which says that there is no value",
            "Fill it in, with a name of its own where it is nobody else's, or remove the row.",
        )
    return value
