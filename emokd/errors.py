"""The exception for wrong input, the rule for its messages, and helpers that word them."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """The user's input is wrong.

    The message says what is wrong, where (file, row, key), and what to do about it. Commands print it
    without a traceback and exit with code 2; library users catch it like any exception.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def excerpt(items: Iterable[object], limit: int = 10) -> str:
    """Joins the first `limit` items, and says how many more there are."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"
