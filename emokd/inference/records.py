"""Answers as lines that other programs read: JSON, or the rows of a CSV table."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from absl import logging

from emokd.inference.answer import Answer, read_answers
from emokd.inference.faces import Face, FaceCropper
from emokd.inference.finding import Found
from emokd.inference.student import Look, Student

PLACE = ("left", "top", "right", "bottom", "score")
SUFFIXES = (".jsonl", ".csv")


def place(face: Face | None) -> dict[str, float]:
    """A face's box in pixels and the detector's score, as cells of a table; none without a face."""
    if face is None:
        return {}
    return dict(zip(PLACE, (*(round(v, 1) for v in face.box), round(face.score, 4)), strict=True))


def columns(student: Student) -> list[str]:
    """The columns of a model's answers, as `Answer.to_cells` has them."""
    blank = read_answers(student.spec, student.outputs(student.blank(1)))
    return list(blank[0].to_cells())


def of_picture(found: Found, look: Look, *, faces: bool) -> dict[str, Any]:
    """The record of one picture: `file`, and its answer, or `size` and `faces`, or `error`."""
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
    """The rows of one picture: one, or one for each face; where there is none, or an error, one that says so."""
    if look.error is not None:
        return [{"file": found.name, "error": str(look.error)}]
    return [{"file": found.name, **place(a.face), **a.to_cells()} for a in look.answers] or [{"file": found.name}]


def look_at(
    student: Student, pictures: Sequence[Found], cropper: FaceCropper | None = None
) -> Iterator[tuple[Found, Look]]:
    """Every picture with what the model says of it, in their order; one without a face is warned of.

    Args:
      student: the model.
      pictures: what to look at.
      cropper: finds the faces to answer for; None: the picture is what is answered for.
    """
    for found, look in zip(pictures, student.looks((each.read for each in pictures), cropper), strict=True):
        if cropper is not None and look.error is None and not look.answers:
            logging.warning("%s: no face was found.", found.name)
        yield found, look


class Writer:
    """Writes records to a text file, as JSON lines or as the rows of a table with a header."""

    def __init__(self, file: TextIO, header: Sequence[str] | None):
        """Begins.

        Args:
          file: where to.
          header: the table's columns; None for JSON lines.
        """
        self._file = file
        self._rows = None if header is None else csv.DictWriter(file, header, lineterminator="\n")
        if self._rows is not None:
            self._rows.writeheader()

    @property
    def is_table(self) -> bool:
        """Whether rows of cells are wanted, not JSON."""
        return self._rows is not None

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds records, each at once on its way to whoever reads."""
        for record in records:
            if self._rows is None:
                print(json.dumps(record), file=self._file, flush=True)
            else:
                self._rows.writerow(record)
