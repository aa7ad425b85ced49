"""Checks the values of a data source's options; every error names the key in the configuration."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from emokd.errors import InputError, nearest


def choice(key: str, value: Any, allowed: Sequence[str]) -> str:
    """One of `allowed`.

    Raises:
      InputError: it is another value; the nearest is named.
    """
    if value not in allowed:
        raise InputError(
            f"config.data.options.{key} is {value!r}.{nearest(str(value), allowed)} Choose one of {', '.join(allowed)}."
        )
    return value


def several(key: str, value: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """One or more distinct values of `allowed`, given as a list or as a text with commas.

    Raises:
      InputError: it is no list, the list is empty, or a value is unknown or repeated.
    """
    if not isinstance(value, Iterable):
        raise InputError(
            f"config.data.options.{key} is {value!r}, which is no list. Name one or more of {', '.join(allowed)}."
        )
    chosen = tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    for name in chosen:
        choice(key, name, allowed)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(
            f"config.data.options.{key} is {', '.join(chosen) or 'empty'}. Name one or more of {', '.join(allowed)}, "
            "each once."
        )
    return chosen


def whole(key: str, value: Any, low: int = 1) -> int:
    """A whole number of at least `low`.

    Raises:
      InputError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"config.data.options.{key} is {value!r}; give a whole number of at least {low}.")
    return value


def number(key: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite number in [low, high].

    Raises:
      InputError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        limits = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"config.data.options.{key} is {value!r}; give a number {limits}.")
    return float(value)
