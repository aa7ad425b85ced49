"""Describes a compiled program: FLOPs, memory and collectives."""

import collections
import math
import re
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)

# An asynchronous collective is a pair: the shape of "-done" is the result alone, that of "-start" has more than it.
_INSTRUCTION = re.compile(rf" = (?P<shape>.*?) (?P<name>{'|'.join(COLLECTIVES)})(?:-done)?\(")
_ARRAY = re.compile(r"([a-z]+(\d*)\w*)\[([\d,]*)\]")


def describe_program(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """FLOPs, memory and collectives of a compiled program, all for one device.

    Returns:
      "flops" and "bytes_accessed" by XLA's estimate (None where it has none); from the buffer assignment
      "argument_bytes", "output_bytes", "aliased_bytes" (arguments whose memory the results reuse), "temporary_bytes"
      and "peak_bytes" (arguments, outputs and temporaries without the aliased); "collectives" as `find_collectives`
      returns them.
    """
    cost = compiled.cost_analysis() or {}
    found: dict[str, Any] = {"flops": _known(cost.get("flops")), "bytes_accessed": _known(cost.get("bytes accessed"))}
    memory = compiled.memory_analysis()
    sizes: dict[str, int | None] = dict.fromkeys(("argument", "output", "aliased", "temporary", "peak"))
    if memory is not None:
        argument, output = memory.argument_size_in_bytes, memory.output_size_in_bytes
        aliased, temporary = memory.alias_size_in_bytes, memory.temp_size_in_bytes
        # Not the analysis' own peak: on CPU it leaves the temporaries out.
        peak = argument + output - aliased + temporary
        sizes = {"argument": argument, "output": output, "aliased": aliased, "temporary": temporary, "peak": peak}
    found |= {f"{name}_bytes": size for name, size in sizes.items()}
    return found | {"collectives": find_collectives(compiled.as_text() or "")}


def _known(value: float | None) -> float | None:
    return value if value is not None and value >= 0 else None


def find_collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Counts the collectives in a compiled program's HLO text, and their bytes.

    The bytes of a collective are those of its result on one device: for an all-gather the gathered array, for a
    reduce-scatter the device's part. A collective inside a loop counts once.

    Returns:
      {"count", "bytes"} for each kind that occurs.
    """
    found: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for line in hlo.splitlines():
        match = _INSTRUCTION.search(line)
        if match:
            entry = found[match["name"]]
            entry["count"] += 1
            entry["bytes"] += shape_bytes(match["shape"])
    return dict(found)


def shape_bytes(shape: str) -> int:
    """Bytes of an HLO shape: an array such as "f32[16,4]{1,0}", or a tuple of arrays. Tokens have no bytes."""
    total = 0
    for name, bits, dimensions in _ARRAY.findall(shape):
        width = 8 if name == "pred" else int(bits or 0)
        total += math.ceil(math.prod(map(int, filter(None, dimensions.split(",")))) * width / 8)
    return total


def live(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """The jaxpr without dead code, that is, operations whose results are not used; the arguments stay."""
    return partial_eval.dce_jaxpr(jaxpr, True, instantiate=True)[0]
