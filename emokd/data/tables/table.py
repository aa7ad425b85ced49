"""Reads tables (CSV) strictly; every error names the file and the line."""

import csv
import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import logging

from emokd.data.tables.text import CONTROL, not_text, open_text
from emokd.errors import InputError, nearest
from emokd.names import essence, normal

_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_MISSING = frozenset(("", "nan", "-nan", "na", "n/a", "<na>", "#na", "#n/a", "#n/a n/a", "null"))


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: empty, or one of the marks of pandas, R and spreadsheets.

    The marks are `nan`, `-nan`, `NA`, `N/A`, `<NA>`, `#NA`, `#N/A`, `#N/A N/A` and `null` in any letter case, and
    `None` in this letter case only.
    """
    return text == "None" or text.lower() in _MISSING


def is_number(text: str) -> bool:
    """Whether a cell is a number in ASCII digits with a point, exponents included."""
    return bool(_NUMBER.fullmatch(text))


def has_plain_digits(text: str) -> bool:
    """Whether `float` finds in a text only what is written: it also takes `1_0` for 10, and digits of other scripts."""
    return text.isascii() and "_" not in text


def has_decimal_comma(text: str) -> bool:
    """Whether a cell is a number with a decimal comma."""
    return bool(_COMMA.fullmatch(text))


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table: its cells by column, with its file and line."""

    table: str
    line: int
    cells: Mapping[str, str]

    def name(self, column: str) -> str:
        """The cell in `names.normal` form; it may be empty."""
        return normal(self.cells[column])

    def missing(self, column: str) -> bool:
        """Whether the cell says that there is no value, see `is_missing`."""
        return is_missing(self.name(column))

    def text(self, column: str) -> str:
        """The cell in `names.normal` form; an empty one is an InputError."""
        value = self.name(column)
        if not value:
            raise self.error(f"column {column!r} is empty", "Fill it in or remove the row.")
        return value

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """The cell as a finite number in [low, high], in ASCII digits with a point; anything else is an InputError."""
        text = self.text(column)
        if not _NUMBER.fullmatch(text):
            raise self._no_number(column, text)
        value = float(text)
        if not math.isfinite(value):
            raise self.error(f"column {column!r} holds {text}, not a finite number", "Correct or remove the row.")
        if not low <= value <= high:
            raise self.error(
                f"column {column!r} holds {text}, outside [{low:g}, {high:g}]", "Correct the row or rescale the column."
            )
        return value

    def choice(self, column: str, classes: Sequence[str]) -> int:
        """The id of the cell's class name; a name that is not in `classes` is an InputError."""
        text = self.text(column)
        if text not in classes:
            raise self.error(
                f"column {column!r} holds {text!r}, which is not a class.{nearest(text, classes)}",
                f"The classes are {', '.join(classes)}.",
            )
        return list(classes).index(text)

    def error(self, problem: str, remedy: str) -> InputError:
        """An InputError that names this line."""
        return InputError(f"{self.table}, line {self.line}: {problem.rstrip('.')}. {remedy}")

    def _no_number(self, column: str, text: str) -> InputError:
        remedy = "Correct the row."
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return self.error(f"column {column!r} holds {text}, not a finite number", "Correct or remove the row.")
        if _COMMA.fullmatch(text):
            remedy = f"Write the decimal comma as a point: {text.replace(',', '.')}."
        elif not text.isascii():
            remedy = "Write it in the digits 0 to 9, with '-' and '.'."
        return self.error(f"column {column!r} holds {text!r}, which is not a number", remedy)


def read_table(path: str, required: Sequence[str] = ()) -> list[Row]:
    """Reads a table with a header; the delimiter (comma, semicolon, tab or bar) is found from the header.

    Args:
      path: the file: UTF-8 with or without a byte order mark, or UTF-16 with one.
      required: columns that must be there; further ones are kept.

    Returns:
      The rows in order; blank lines are skipped.

    Raises:
      InputError: the file is missing, is not text, has no rows, lacks a column or repeats one, or a row has a wrong
        number of cells or a control character.
    """
    if not os.path.exists(path):
        raise InputError(f"The table {path} does not exist. Put it there or name another one.")
    return list(iterate_table(path, required))


def iterate_table(
    path: str,
    required: Sequence[str] = (),
    headerless: Callable[[Sequence[str]], Sequence[str] | None] = lambda top: None,
    delimiter: str = "",
) -> Iterator[Row]:
    """As `read_table`, but row by row, for tables that would fill the memory.

    Args:
      path: likewise.
      required: likewise.
      headerless: gets the cells of the first line, and returns the columns if these are a row already, else None.
      delimiter: between the cells; empty: derived from the first line.
    """
    line = before = 0
    with open_text(path) as file:
        try:
            top = file.readline()
            if separator := _SEPARATOR.fullmatch(top):  # a spreadsheet's line that names the delimiter
                delimiter, before = separator[1], 1
            else:
                delimiter = delimiter or max(_DELIMITERS, key=top.count)
                file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            first = [normal(cell) for cell in next(reader, [])]
            if not any(first) and any(text.strip() for text in file):
                raise InputError(
                    f"{path}, line {before + 1} is blank, so the table seems to have no header. Remove what is before "
                    "the line that names the columns."
                )
            header = headerless(first)
            count = 0 if header is None else 1
            if header is None:
                header = first
                _check_header(path, header, required)
            else:
                yield Row(path, 1, dict(zip(header, first, strict=True)))
            for cells in reader:
                line = reader.line_num + before
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}, line {line}: {len(cells)} cells for {len(header)} columns. "
                        "Correct the row; a cell that holds the delimiter needs quotes."
                    )
                _check_characters(path, line, header, cells)
                count += 1
                yield Row(path, line, dict(zip(header, cells, strict=True)))
            if not count:
                raise InputError(f"{path} has no rows below its header. Give at least one example.")
        except UnicodeError:
            raise not_text(path) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num + before}: not readable as CSV ({error}). Correct the row."
            ) from error


def check_columns(rows: Sequence[Row], required: Sequence[str]) -> None:
    """Checks that a table has these columns.

    Raises:
      InputError: it lacks one; the nearest is named.
    """
    _check_header(rows[0].table, list(rows[0].cells), required)


def check_optional(rows: Sequence[Row], optional: Sequence[str]) -> None:
    """Checks that no optional column is ignored because its name is written in another way, such as `Split`.

    Raises:
      InputError: a column differs from one of `optional`, which the table lacks, in letter case, spaces or invisible
        characters alone.
    """
    header = list(rows[0].cells)
    wanted = {essence(name): name for name in optional if name not in header}
    for name in header:
        if name not in optional and essence(name) in wanted:
            raise InputError(
                f"{rows[0].table}, line 1: the column {name!r} would not be read. Write it "
                f"{wanted[essence(name)]!r}; if it is not meant to be read, give it another name."
            )


def id_column(rows: Sequence[Row]) -> str:
    """The column that names the rows: `id` where there is one, else the first.

    Raises:
      InputError: the first column has no name, as that of the index which pandas writes, and another one is `id`.
    """
    header = list(rows[0].cells)
    key = next((name for name in header if essence(name) == "id"), header[0])
    key = "id" if "id" in header else key
    if key != header[0] and not header[0]:
        raise InputError(
            f"{rows[0].table}, line 1: the first column has no name, as the index that pandas writes, and there is a "
            f"column {key!r}. Remove the first (to_csv(index=False)); if it is meant as the ids, rename {key!r}."
        )
    if key != header[0]:
        logging.warning(
            "%s: the column %r names the rows; %r, which is before it, does not.", rows[0].table, key, header[0]
        )
    return key


def unique(rows: Sequence[Row], column: str) -> None:
    """Checks that no two rows have the same cell in `column`.

    Raises:
      InputError: two rows do; the message names both lines.
    """
    line_of: dict[str, int] = {}
    for row in rows:
        value = row.text(column)
        if value in line_of:
            raise row.error(f"{value!r} is also on line {line_of[value]}", "Keep one of the two rows.")
        line_of[value] = row.line


def _check_characters(path: str, line: int, header: Sequence[str], cells: Sequence[str]) -> None:
    for column, cell in zip(header, cells, strict=True):
        if match := CONTROL.search(cell):
            raise InputError(
                f"{path}, line {line}: column {column!r} holds the control character {match[0]!r}. Correct the cell."
            )


def _check_header(path: str, header: Sequence[str], required: Sequence[str]) -> None:
    if not any(header):
        raise InputError(f"{os.fspath(path)} is empty. It needs a header line naming its columns.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}, line 1: column {repeated[0]!r} appears twice. Rename one of the two.")
    for name in required:
        if name not in header:
            raise InputError(
                f"{path}, line 1: there is no column {name!r}.{nearest(name, header)} It has: {', '.join(header)}."
            )
