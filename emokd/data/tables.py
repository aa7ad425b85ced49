"""Tables of labels (CSV), read strictly: every complaint names the file and the line."""

import csv
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

from emokd.errors import InputError, nearest

_DELIMITERS = (",", ";", "\t", "|")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: its cells by column, with where it came from."""

    table: str
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell, stripped; an empty one is an InputError."""
        value = self.cells[column].strip()
        if not value:
            raise self.error(f"column {column!r} is empty", "Fill it in or remove the row.")
        return value

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """The cell as a finite number in [low, high]; anything else is an InputError."""
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            raise self.error(f"column {column!r} holds {text!r}, which is not a number", "Correct the row.") from None
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


def read_table(path: str, required: Sequence[str] = ()) -> list[Row]:
    """Reads a table with a header; the delimiter (comma, semicolon, tab or bar) is found from the header.

    Args:
      path: the file, UTF-8 with or without a byte order mark.
      required: columns that must be there; further ones are kept.

    Returns:
      The rows in order; blank lines are skipped.

    Raises:
      InputError: the file is missing, is not UTF-8 text, has no rows, lacks a column or repeats one, or a row
        has a wrong number of cells.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header_line = file.readline()
            delimiter = max(_DELIMITERS, key=header_line.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, required)
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns. "
                        "Correct the row; a cell that holds the delimiter needs quotes."
                    )
                rows.append(Row(path, reader.line_num, dict(zip(header, cells, strict=True))))
    except FileNotFoundError:
        raise InputError(f"The table {path} does not exist. Put it there or name another one.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not readable as CSV ({error}). Correct the row.") from error
    if not rows:
        raise InputError(f"{path} has no rows below its header. Give at least one example.")
    return rows


def unique(rows: Sequence[Row], column: str) -> None:
    """Checks that no two rows have the same cell in `column`.

    Raises:
      InputError: two rows do; the message names both lines.
    """
    seen: dict[str, int] = {}
    for row in rows:
        value = row.text(column)
        if value in seen:
            raise row.error(f"{value!r} is also on line {seen[value]}", "Keep one of the two rows.")
        seen[value] = row.line


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
