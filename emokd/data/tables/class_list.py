"""Reads and checks lists of class names from a configuration, the command line or a file."""

import csv
import os
import re
from collections.abc import Iterable, Mapping

from absl import logging

from emokd.data.tables.text import read_lines
from emokd.errors import InputError
from emokd.names import look_alikes, normal

# What no class name holds: line ends and tabs, and remains of a list in another notation (a quote at one end, a bracket
# without its partner).
_NO_NAME = re.compile(r"[\t\r\n\u0085\u2028\u2029]|^['\"]|['\"],?$|^[\[{](?!.*[\]}])|^[^\[{]*\w[\]}]$|^[\[\](){}],?$")
_NUMBERED = re.compile(r"[(\[]?([0-9]+)[\s,:;=.)\]]+[^\s0-9]")  # 0 a; 0. a; (0) a
_NUMBER_LAST = re.compile(r"(.*[^\s,:;=])\s*([\s,:;=])\s*([0-9]+)")  # a,0; a: 0; a 0
_BULLET = re.compile(r"[-*+\u2022]\s")


def check_classes(names: Iterable[str], where: Mapping[str, str] | None = None, what: str = "The class list") -> None:
    """Checks that no two classes differ in letter case, spaces, or invisible and typographic characters alone.

    Args:
      names: class names in `names.normal` form.
      where: where each name is from, for the message.
      what: what holds the names, for the message.

    Raises:
      InputError: two do; the message has both spellings and their places.
    """
    for same in look_alikes(names):
        clash = " and ".join(f"{name!r}" + (f" ({where[name]})" if where else "") for name in same)
        raise InputError(
            f"{what}: the classes {clash} differ in letter case, spaces or unseen characters alone. "
            "Write one class in one way."
        )


def as_classes(value: str | Iterable[object], what: str) -> tuple[str, ...]:
    """A class list, given as names or as a text with commas, checked; a name that holds a comma is in quotes.

    Raises:
      InputError: it is no list, such as a number; a name is empty, repeated, or not a class name; or two look alike.
    """
    if not isinstance(value, Iterable):
        raise InputError(f"{what} is {value!r}, which is no list of classes. Give their names: a,b,c.")
    names = [normal(str(name)) for name in (_cells(value, what) if isinstance(value, str) else value)]
    return _checked(names, [f"number {i}" for i in range(1, len(names) + 1)], what)


def read_classes(text: str) -> list[str]:
    """Class names from a comma-separated list, or from a file with one per line; empty lines at its end do not count.

    A name may be in quotes.

    Raises:
      InputError: the file is missing or not text; a name is empty, repeated, or not a class name (numbered lines, all
        names in one line, a comment, a list in a programming language); or two look alike.
    """
    if not text:
        return []
    if not os.path.isfile(text):  # pathlib's fails for a list that is longer than a file's name may be
        if "," not in text and (text.endswith((".txt", ".csv", ".tsv", ".names")) or "/" in text):
            raise InputError(f"--classes={text}: there is no such file. Correct the path, or give the names: a,b,c.")
        return list(as_classes(text, f"--classes={text}"))
    names = [normal(line) for line in read_lines(text)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"--classes={text} is empty. Give one class name per line, in the order of the outputs.")
    _check_lines(names, f"--classes={text}")
    names = [normal(_unquoted(name)) for name in names]
    return list(_checked(names, [f"line {i}" for i in range(1, len(names) + 1)], f"--classes={text}"))


def _checked(names: list[str], places: list[str], what: str) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for name, place in zip(names, places, strict=True):
        if not name:
            raise InputError(f"{what}: class name {place} is empty. Name every class, in the order of the ids.")
        if name in first:
            raise InputError(f"{what} names {name!r} twice ({first[name]}, {place}). Name each class once.")
        if match := _NO_NAME.search(name):
            raise InputError(
                f"{what}: class name {place} is {name!r}, with {match[0]!r} in it, which is no part of a name. "
                "Give the names alone: a,b,c, or one per line in a file."
            )
        first[name] = place
    check_classes(names, first, what)
    return tuple(names)


def _cells(text: str, what: str) -> list[str]:
    """The parts of a text with commas."""
    try:
        return next(csv.reader([text], skipinitialspace=True, strict=True), [""])
    except csv.Error as error:
        raise InputError(f"{what} cannot be read ({error}). Give names with commas between: a,b,c.") from error


def _unquoted(line: str) -> str:
    quoted = len(line) > 1 and line[0] == line[-1] == '"'
    return line[1:-1].replace('""', '"') if quoted else line


def _check_lines(lines: list[str], what: str) -> None:
    """Checks that the lines of a file are names, not rows of a table or parts of a program."""
    if lines[0].startswith(("#", "//")):
        raise InputError(f"{what}, line 1 seems to be a comment: {lines[0]!r}. Give one class name per line, no more.")
    if len(lines) == 1 and "," in _unquoted(lines[0]):
        raise InputError(
            f"{what} has all names in one line. Give one class name per line, in the order of the outputs."
        )
    if all(map(_BULLET.match, lines)):
        raise InputError(
            f"{what}: every line begins with the sign of a list, such as line 1: {lines[0]!r}. Give the names alone, "
            "one per line."
        )
    numbers = [match and int(match[1]) for match in map(_NUMBERED.match, lines)]
    at_the_end = _numbers_at_the_end(lines)
    if at_the_end == " ":  # which may be part of names, such as "no pain 0" and "mild 1"
        logging.warning(
            "%s: every name ends in another number, such as %r. Leave the numbers out if they are none of the names'.",
            *(what, lines[0]),
        )
    elif len(lines) > 1 and ((None not in numbers and len(set(numbers)) == len(numbers)) or at_the_end):
        raise InputError(
            f"{what}: every line has a number beside the name, such as line 1: {lines[0]!r}. Give the names alone, one "
            "per line, in the order of these numbers."
        )


def _numbers_at_the_end(lines: list[str]) -> str:
    """The sign between different names and the ids behind them; empty where there are none.

    "pain 0" and "pain 1" are names as they are.
    """
    matches = [match for match in map(_NUMBER_LAST.fullmatch, lines) if match]
    ids = sorted(int(match[3]) for match in matches)
    names, signs = {match[1] for match in matches}, {match[2] for match in matches}
    counted = len(names) == len(lines) > 1 and ids in ([*range(len(lines))], [*range(1, len(lines) + 1)])
    return signs.pop() if counted and len(signs) == 1 else ""
