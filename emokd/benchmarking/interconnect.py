"""How long TPUs exchange arrays: a model, from the published rates of their links. [ours]

Arrays travel round one ring through the devices of a group, half of them in each direction, and an all-reduce goes
round twice. A slice whose torus has more axes has more links than that, so the time is too long rather than too short.
"""

import math
from collections.abc import Sequence

from jax.sharding import Mesh

from emokd.benchmarking.chips import Chip
from emokd.benchmarking.hlo import Collective

HOP = 1e-6
"""Seconds from one chip to the next. [ours]: about what "How to Scale Your Model" (jax-ml.github.io) gives."""

MODEL = (
    f"Time on the interconnect: round one ring, both directions at the links' published rate, {1e6 * HOP:.0f} us a "
    "hop; none of it is hidden behind computing."
)


def axis_of(collective: Collective, mesh: Mesh) -> str:
    """The axes of the mesh over which devices exchange: "data", "fsdp", "data, fsdp"; "other" for any other group."""
    if collective.kind == "collective-permute":  # it has pairs in place of groups
        return "other"
    rows, columns = mesh.devices.shape
    size = rows * columns
    group = collective.group or tuple(range(size))
    if len(group) == size:
        return ", ".join(name for name, length in mesh.shape.items() if length > 1) or "none"
    if list(group) == list(range(columns)):
        return "fsdp"
    if list(group) == list(range(0, size, columns)):
        return "data"
    return "other"


def seconds(collective: Collective, devices: int, shape: Sequence[int], chip: Chip) -> float:
    """The time of a collective each time that it runs.

    Args:
      collective: what is exchanged.
      devices: how many there are in all.
      shape: chips along each axis of the torus.
      chip: its devices.
    """
    members = len(collective.group) or devices
    if members == 1:
        return 0.0
    hops = min(sum(length // 2 for length in shape), math.ceil(members / 2))
    if collective.kind in ("collective-permute", "collective-broadcast"):
        return HOP + collective.bytes / chip.link
    # Of a reduce-scatter the bytes are those of one device's part, and all parts travel.
    travelling = collective.bytes * (members if collective.kind == "reduce-scatter" else 1) * (members - 1) / members
    rounds = 2 if collective.kind == "all-reduce" else 1
    return rounds * (hops * HOP + travelling / (2 * chip.link / chip.cores))
