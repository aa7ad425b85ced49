"""Reads fields of a JSON object one by one, and checks their types and ranges; errors name the place in the file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from emokd.errors import InputError, excerpt, nearest

SHOWN = 60
"""Characters of a wrong value that a message shows."""


class Fields:
    """An object of a JSON file. Methods that read a field raise an InputError where it is missing or does not fit.

    Args:
      values: the object.
      file: the file's name, for messages.
      place: the object's place in the file, such as "spec.preprocessing"; empty for the whole file.
      remedy: a sentence that says what to do where something is wrong.
    """

    def __init__(self, values: Any, file: str, place: str = "", remedy: str = ""):
        self._file, self._place, self._remedy = file, place, remedy
        if not isinstance(values, Mapping):
            raise InputError(f"{file}{f': {place}' if place else ''} is not a JSON object. {remedy}".strip())
        self._values = values

    def require(self, names: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Checks that the object has these keys, and perhaps the optional ones, but no other.

        Raises:
          InputError: a key is missing or unknown.
        """
        if missing := sorted(set(names) - set(self._values)):
            raise InputError(f"{self._of('lacks')} {excerpt(missing)}. {self._remedy}".strip())
        if unknown := sorted(map(str, set(self._values) - {*names, *optional})):
            hint = nearest(unknown[0], [*names, *optional])
            raise InputError(f"{self._of('has the unknown keys')} {excerpt(unknown)}.{hint} {self._remedy}".strip())

    def text(self, name: str, choices: Sequence[str] = ()) -> str:
        """A text, one of `choices` where there are any."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        if choices and value not in choices:
            hint = nearest(value, choices).strip()
            raise self._wrong(name, value, f"one of {', '.join(choices)}", hint)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._values.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._values.get(name)
        if not _is_whole(value) or not low <= value <= high:
            raise self._wrong(name, value, f"a whole number from {low} to {high}")
        return int(value)

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self._values.get(name)
        if not _is_number(value) or not low <= value <= high:
            raise self._wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def numbers(self, name: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """A list of `count` finite numbers from `low` to `high`."""
        value = self._values.get(name)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(_is_number(v) and low <= v <= high for v in value)
        ):
            raise self._wrong(name, value, f"a list of {count} numbers from {low:g} to {high:g}")
        return tuple(map(float, value))

    def wholes(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """A list of whole numbers from `low` to `high`, of any length."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(_is_whole(v) and low <= v <= high for v in value):
            raise self._wrong(name, value, f"a list of whole numbers from {low} to {high}")
        return tuple(map(int, value))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of distinct texts."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or len(set(value)) < len(value):
            raise self._wrong(name, value, "a list of different texts")
        return tuple(value)

    def options(self, name: str, limit: int, limits: Mapping[str, int]) -> dict[str, Any]:
        """Keyword arguments: texts, truth values, null, numbers of limited magnitude, and lists of these.

        Args:
          name: the object's key.
          limit: the largest magnitude of numbers without a limit of their own.
          limits: largest magnitudes by key.
        """
        options = self.inner(name)
        for key in options:
            options._check_option(key, options._values[key], limits.get(key, limit))
        return dict(options._values)

    def inner(self, name: str) -> "Fields":
        """The object under a key."""
        return Fields(self._values.get(name), self._file, self._path(name), self._remedy)

    def wrong_count(self, name: str, count: int, wanted: int) -> InputError:
        """The error for a list of `count` entries under a key where `wanted` are needed."""
        return InputError(f"{self._file}: {self._path(name)} has {count} entries for {wanted} outputs. {self._remedy}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def _check_option(self, name: str, value: Any, limit: int) -> None:
        if isinstance(value, str | bool | None):
            return
        if _is_number(value) and abs(value) <= limit:
            return
        if isinstance(value, list) and len(value) <= SHOWN:
            for each in value:
                self._check_option(name, each, limit)
            return
        if isinstance(value, Mapping):
            for key, each in value.items():
                self._check_option(f"{name}.{key}", each, limit)
            return
        raise self._wrong(name, value, f"a text, true, false, null or a number up to {limit}, or a list of such")

    def _path(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def _of(self, verb: str) -> str:
        return f"{self._file}: {self._place} {verb}" if self._place else f"{self._file} {verb}"

    def _wrong(self, name: str, value: Any, wanted: str, hint: str = "") -> InputError:
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**SHOWN else "a huge number"
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        where = f"{self._file}: {self._path(name)} is {shown}, not {wanted}."
        return InputError(" ".join(part for part in (where, hint, self._remedy) if part))


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[int | float]:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False
