"""What stands in the way of a step that does not fit into a TPU's memory."""

import collections
import math
import re
from collections.abc import Iterator
from typing import Any

from jax.extend import core

from emokd.parts import part_of

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_REFUSALS = (
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
    re.compile(rf"[Uu]sed {_SIZE} of {_SIZE} hbm"),
)


def read_refusal(message: str) -> dict[str, Any]:
    """The compiler's message for a program that does not fit.

    Returns:
      {"wanted_bytes", "available_bytes", "message"}; None for bytes that the message does not say.
    """
    found = next(filter(None, (pattern.search(message) for pattern in _REFUSALS)), None)
    sizes = (
        [float(number) * _UNITS[unit] for number, unit in zip(*[iter(found.groups())] * 2, strict=True)]
        if found
        else [None] * 2
    )
    return {"wanted_bytes": sizes[0], "available_bytes": sizes[1], "message": " ".join(message.split())[:300]}


def largest_arrays(jaxpr: core.Jaxpr, count: int = 6) -> list[dict[str, Any]]:
    """The largest arrays that a step works out, over all devices: the compiler's message names none of them.

    Not all of them are held at once, or at all: the compiler fuses operations, and divides arrays over the devices
    where it can.

    Args:
      jaxpr: the step.
      count: how many shapes to give.

    Returns:
      For each shape of a part {"bytes", "shape", "part", "count"}, the largest first; bytes are those of one array.
    """
    found: dict[tuple[str, str], dict[str, Any]] = collections.defaultdict(lambda: {"bytes": 0, "count": 0})
    for part, aval in _results(jaxpr, ""):
        entry = found[aval.str_short(short_dtypes=True), part]
        entry["bytes"] = math.prod(aval.shape) * aval.dtype.itemsize
        entry["count"] += 1
    entries = [{"shape": shape, "part": part or "rest", **entry} for (shape, part), entry in found.items()]
    return sorted(entries, key=lambda entry: -entry["bytes"])[:count]


def _results(jaxpr: core.Jaxpr, around: str) -> Iterator[tuple[str, Any]]:
    """Part and abstract value of each operation's results, of those inside others too."""
    for equation in jaxpr.eqns:
        part = part_of(str(equation.source_info.name_stack)) or around
        inner = list(core.jaxprs_in_params(equation.params))
        for each in inner:
            yield from _results(each, part)
        if not inner:
            yield from ((part, v.aval) for v in equation.outvars if hasattr(v.aval, "shape"))
