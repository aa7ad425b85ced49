"""An optimised program for a TPU, read from its text: estimated cycles by part, loops, collectives.

Every operation of such a program that takes time carries the cycles that the compiler's cost model gives it, by which
it is scheduled. They hold no time on the interconnect.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emokd.benchmarking.program import COLLECTIVES, shape_bytes
from emokd.parts import part_of

REST = "rest"
"""The part of what has no name: losses, weighting, copies."""

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<kind>[a-z][\w\-]*)\((?P<rest>.*)$"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_OPERAND = re.compile(r"%([\w.\-]+)")
_DONE = 'custom_call_target="AsyncCollectiveDone"'
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_AXIS = re.compile(r"'(\w+)'=(\d+)")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation.

    Attributes:
      root: not empty where its result is that of its computation.
      name: in the program.
      shape: of its result.
      kind: such as "fusion" or "while".
      rest: of its line, from the operands on.
    """

    root: str | None
    name: str
    shape: str
    kind: str
    rest: str

    @functools.cached_property
    def cycles(self) -> int:
        """By the compiler's cost model; 0 where it gives none."""
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else 0

    @functools.cached_property
    def part(self) -> str | None:
        """The part of the step that it belongs to; None where it has no name at all."""
        found = _OP_NAME.search(self.rest)
        return (part_of(found[1]) or REST) if found else None

    def computations(self, attribute: str) -> Sequence[str]:
        """The computations that an attribute names, such as "body"."""
        found = re.search(rf"\b{attribute}=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", self.rest)
        return [name.strip().lstrip("%") for name in (found[1] or found[2]).split(",")] if found else []


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop.

    Attributes:
      part: of the step.
      cycles: of one pass through body and condition, loops inside it included.
      trips: how often it runs, as it was counted; each time that it is reached.
      known: whether the program says how often.
    """

    part: str
    cycles: float
    trips: int
    known: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
      kind: one of `program.COLLECTIVES`.
      bytes: of its result on one device.
      group: the devices of the first group that exchange with one another; empty for all.
      times: how often it runs in a step.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]
    times: int


@dataclasses.dataclass
class Profile:
    """What a step takes.

    Attributes:
      parts: cycles by part.
      small: cycles of operations of no more than `SMALL` cycles.
      operations: how many operations take any.
      loops: the outermost first.
      collectives: all of them.
    """

    parts: dict[str, float] = dataclasses.field(default_factory=lambda: collections.defaultdict(float))
    small: float = 0.0
    operations: int = 0
    loops: list[Loop] = dataclasses.field(default_factory=list)
    collectives: list[Collective] = dataclasses.field(default_factory=list)

    @property
    def cycles(self) -> float:
        """Of the whole step."""
        return sum(self.parts.values())


SMALL = 5000
"""Cycles up to which launching an operation, and waiting for what it needs, is most of what it takes. [ours]"""


def read_profile(text: str, trips: int | None = None) -> Profile:
    """The profile of a program.

    A loop counts as often as the program says that it runs; where it does not say, `trips` times, or once. Of a
    condition the branch of most cycles counts.

    Args:
      text: from `jax.stages.Compiled.as_text`.
      trips: how often loops run whose number of passes is decided as they run.
    """
    computations, entry = _read(text)
    profile = Profile()
    _add(profile, computations, entry, 1, trips)
    return profile


def _read(text: str) -> tuple[Mapping[str, Sequence[Instruction]], str]:
    """The computations by name, and the name of the one that is the program."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", list[Instruction]()
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header["name"]] = []
            entry = header["name"] if header["entry"] else entry
        elif found := _INSTRUCTION.match(line):
            current.append(Instruction(**found.groupdict()))
    return computations, entry


def _add(
    profile: Profile, computations: Mapping[str, Sequence[Instruction]], name: str, times: int, trips: int | None
) -> None:
    """Adds what a computation takes that runs `times` times in a step."""
    instructions = computations.get(name, ())
    for instruction in instructions:
        if instruction.cycles:
            profile.parts[_part(instruction, computations)] += instruction.cycles * times
            profile.operations += times
            if instruction.cycles <= SMALL:
                profile.small += instruction.cycles * times
        profile.collectives += _collectives(instruction, instructions, computations, times)
        if instruction.kind == "while":
            _add_loop(profile, computations, instruction, times, trips)
        elif instruction.kind == "conditional":
            attributes = ("branch_computations", "true_computation", "false_computation")
            branches = itertools.chain.from_iterable(map(instruction.computations, attributes))
            _add(profile, computations, max(branches, key=lambda b: _cost(computations, b, trips)), times, trips)
        elif instruction.kind in ("call", "async-start"):
            for called in (*instruction.computations("to_apply"), *instruction.computations("calls")):
                _add(profile, computations, called, times, trips)


def _part(instruction: Instruction, computations: Mapping[str, Sequence[Instruction]]) -> str:
    """The part of an instruction; of a fusion without a name that of most operations inside it."""
    if instruction.part is not None:
        return instruction.part
    inside = itertools.chain.from_iterable(computations.get(c, ()) for c in instruction.computations("calls"))
    found = collections.Counter(each.part for each in inside if each.part is not None)
    return found.most_common(1)[0][0] if found else REST


def _add_loop(
    profile: Profile,
    computations: Mapping[str, Sequence[Instruction]],
    loop: Instruction,
    times: int,
    trips: int | None,
) -> None:
    passes = known_passes(loop, computations)
    count = passes if passes is not None else trips or 1
    inside = (*loop.computations("body"), *loop.computations("condition"))
    once = sum(_cost(computations, called, trips) for called in inside)
    profile.loops.append(Loop(_part(loop, computations), once, count, passes is not None))
    for called in inside:
        _add(profile, computations, called, times * count, trips)


def known_passes(loop: Instruction, computations: Mapping[str, Sequence[Instruction]]) -> int | None:
    """How often a loop runs each time that it is reached; None where that hangs on what it computes.

    The program says it, or the condition is that a counter is below a constant: so JAX makes loops of a known length,
    which count from 0 by ones. [ours]
    """
    if stated := _TRIPS.search(loop.rest):
        return int(stated[1])
    inside = {each.name: each for name in loop.computations("condition") for each in computations.get(name, ())}
    root = next((each for each in inside.values() if each.root), None)
    if root is None or root.kind != "compare" or "direction=LT" not in root.rest:
        return None
    counter, limit = (inside.get(name) for name in _OPERAND.findall(root.rest)[:2])
    if counter is None or limit is None or (counter.kind, limit.kind) != ("get-tuple-element", "constant"):
        return None
    number = re.match(r"\d+", limit.rest)
    return int(number[0]) if number else None


def _cost(computations: Mapping[str, Sequence[Instruction]], name: str, trips: int | None) -> float:
    alone = Profile()
    _add(alone, computations, name, 1, trips)
    return alone.cycles


def _collectives(
    instruction: Instruction,
    beside: Sequence[Instruction],
    computations: Mapping[str, Sequence[Instruction]],
    times: int,
) -> Iterator[Collective]:
    """What an instruction exchanges, itself or, of a fusion, inside.

    A collective that goes on beside other operations stands in the fusion that starts it, in those that it goes on
    beside, and in the one that ends it: the first counts.
    """
    if instruction.kind == "fusion":
        for called in instruction.computations("calls"):
            inside = computations.get(called, ())
            if called.startswith("async_collective_fusion") or any(_DONE in each.rest for each in inside):
                continue
            for each in inside:
                yield from _collectives(each, inside, computations, times)
    kind = instruction.kind.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    shape = instruction.shape
    if kind != instruction.kind:  # the shape of the "-done" is the result alone
        for other in beside:
            operand = _OPERAND.search(other.rest)
            if other.kind == f"{kind}-done" and operand is not None and operand[1] == instruction.name:
                shape = other.shape
    yield Collective(kind, shape_bytes(shape), first_group(instruction.rest), times)


def first_group(text: str) -> tuple[int, ...]:
    """The first of `replica_groups`; empty for all.

    They are written out, or as a range that is reshaped and transposed, or as axes of a mesh.
    """
    if mesh := _MESH.search(text):
        axes = {name: int(length) for name, length in _AXIS.findall(mesh[1])}
        places = np.arange(np.prod(tuple(axes.values()))).reshape(tuple(axes.values()))
        first = tuple(slice(None) if f"'{name}'" in mesh[2] else 0 for name in axes)
        return tuple(places[first].reshape(-1).tolist())
    if listed := _LISTED.search(text):
        return tuple(map(int, filter(None, listed[1].split(","))))
    if iota := _IOTA.search(text):
        _, size, shape, order = iota.groups()
        dimensions = tuple(map(int, shape.split(",")))
        places = np.arange(np.prod(dimensions)).reshape(dimensions)
        if order:
            places = places.transpose(tuple(map(int, order.split(","))))
        return tuple(places.reshape(-1)[: int(size)].tolist())
    return ()
