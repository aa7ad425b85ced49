"""Lists of class names, from a configuration, the command line or a file, and what such a list must not hold."""

import pathlib
from collections.abc import Iterable, Mapping

from emokd.data.tables.text import read_lines
from emokd.errors import InputError
from emokd.names import look_alikes, normal


def check_classes(names: Iterable[str], where: Mapping[str, str] | None = None, what: str = "The class list") -> None:
    """Checks that no two classes differ in letter case, spaces, or unseen and typographic characters alone.

    Args:
      names: class names in `names.normal` form.
      where: the place of each name, for the message.
      what: what holds the names.

    Raises:
      InputError: two do; the message has both spellings and their places.
    """
    for same in look_alikes(names):
        told = " and ".join(f"{name!r}" + (f" ({where[name]})" if where else "") for name in same)
        raise InputError(
            f"{what}: the classes {told} differ in letter case, spaces or unseen characters alone. "
            "Write one class in one way."
        )


def as_classes(given: str | Iterable[object], what: str) -> tuple[str, ...]:
    """A class list, given as names or as a text with commas, checked.

    Raises:
      InputError: a name is empty or there twice, or two look alike.
    """
    names = [normal(str(name)) for name in (given.split(",") if isinstance(given, str) else given)]
    return _checked(names, [f"number {i}" for i in range(1, len(names) + 1)], what)


def read_classes(text: str) -> list[str]:
    """Class names from a comma-separated list, or from a file with one per line; empty lines at its end do not count.

    Raises:
      InputError: the file is missing or no text, or a name is empty or there twice, or two look alike.
    """
    if not text:
        return []
    path = pathlib.Path(text)
    if not path.is_file():
        if "," not in text and (path.suffix in (".txt", ".csv", ".tsv", ".names") or "/" in text):
            raise InputError(f"--classes={text}: there is no such file. Correct the path, or give the names: a,b,c.")
        return list(as_classes(text, f"--classes={text}"))
    names = [normal(line) for line in read_lines(text)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"--classes={text} is empty. Give one class name per line, in the order of the outputs.")
    return list(_checked(names, [f"line {i}" for i in range(1, len(names) + 1)], f"--classes={text}"))


def _checked(names: list[str], places: list[str], what: str) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for name, place in zip(names, places, strict=True):
        if not name:
            raise InputError(f"{what}: class name {place} is empty. Name every class, in the order of the ids.")
        if name in first:
            raise InputError(f"{what} names {name!r} twice ({first[name]}, {place}). Name each class once.")
        first[name] = place
    check_classes(names, first, what)
    return tuple(names)
