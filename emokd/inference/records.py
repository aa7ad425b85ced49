"""Writes answers for other programs, as JSON lines or the rows of a CSV table."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from absl import logging

from emokd.inference.answer import Answer, read_answers
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.finding import Found
from emokd.inference.student import Look, Student

PLACE = ("left", "top", "right", "bottom", "score")
SUFFIXES = (".jsonl", ".csv")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def place(face: Face | None) -> dict[str, float]:
    """A face's box in pixels and the detector's score, as table cells; an empty dict without a face."""
    if face is None:
        return {}
    return dict(zip(PLACE, (*(round(v, 1) for v in face.box), round(face.score, 4)), strict=True))


def columns(student: Student) -> list[str]:
    """The columns of a model's answers, as `Answer.to_cells` names them."""
    blank = read_answers(student.signature, student.outputs(student.blank(1)))
    return list(blank[0].to_cells())


def of_picture(found: Found, look: Look, *, faces: bool) -> dict[str, Any]:
    """The JSON record of one picture: `file`, then its answer, or `size` and `faces`, or `error`."""
    record: dict[str, Any] = {"file": found.name}
    if look.error is not None:
        return record | {"error": str(look.error)}
    if not faces:
        return record | look.answers[0].to_json()
    return record | {"size": list(look.size), "faces": [_of_face(answer) for answer in look.answers]}


def _of_face(answer: Answer) -> dict[str, Any]:
    *box, score = place(answer.face).values()
    return {"box": box, "score": score, **answer.to_json()}


def rows_of_picture(found: Found, look: Look) -> list[dict[str, Any]]:
    """The table rows of one picture: one row per face, or a single row, also where there is no face or an error."""
    if look.error is not None:
        return [{"file": found.name, "error": str(look.error)}]
    return [{"file": found.name, **place(a.face), **a.to_cells()} for a in look.answers] or [{"file": found.name}]


def look_at(
    student: Student, pictures: Sequence[Found], cropper: FaceCropper | None = None
) -> Iterator[tuple[Found, Look]]:
    """Yields every picture with the model's answers, in order, and logs a warning for one without a face.

    Args:
      student: the model.
      pictures: the pictures to answer for.
      cropper: finds the faces to answer for; None: each picture as a whole is answered for.
    """
    for found, look in zip(pictures, student.looks((each.read for each in pictures), cropper), strict=True):
        if cropper is not None and look.error is None and not look.answers:
            logging.warning("%s: no face was found.", found.name)
        yield found, look


_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def as_cell(value: Any) -> Any:
    """A value as a table's cell: a text that spreadsheets would compute begins with an apostrophe.

    A spreadsheet takes a cell that begins with =, +, -, @, a tab or a line break for a formula, which can send the
    table's content away. Numbers stay as they are, also those that are texts, such as the id "-12".

    Source: OWASP, CSV Injection.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


class Writer:
    """Writes records to a text file, as JSON lines or as the rows of a table with a header, see `as_cell`."""

    def __init__(self, file: TextIO, header: Sequence[str] | None):
        """Begins the file, with the header of a table.

        Args:
          file: the text file to write to.
          header: the table's columns; None for JSON lines.
        """
        self._file = file
        self._rows = None if header is None else csv.DictWriter(file, header, lineterminator="\n")
        if self._rows is not None:
            self._rows.writerow({name: as_cell(name) for name in self._rows.fieldnames})

    @property
    def is_table(self) -> bool:
        """Whether it writes a table's rows, not JSON lines."""
        return self._rows is not None

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds records and flushes each, so that a reader gets it at once."""
        for record in records:
            if self._rows is None:
                print(json.dumps(record), file=self._file, flush=True)
            else:
                self._rows.writerow({name: as_cell(value) for name, value in record.items()})
