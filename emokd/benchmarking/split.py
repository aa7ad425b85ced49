"""Measures where a step's time goes: how much less time it takes without each of its parts.

A part is the operations traced under its name (`emokd.parts`), with their gradients; the operations without a name
(the losses and everything else) form a part too. A variant is the step's program without the operations of one part.
Results of the removed operations that other operations need are arguments of the variant, with the values of the whole
step. Results that the removed operations need are outputs of the variant, so that they are still computed. Nothing else
changes.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from emokd.benchmarking.program import live
from emokd.benchmarking.timing import Clock, Rule, interleave, ratio
from emokd.models.macs import count_macs_of
from emokd.parts import AUGMENTATION, OPTIMISER, part_of

STEP, LOSSES = "step", "losses"
WHAT = {AUGMENTATION: "views rendered", OPTIMISER: "update", LOSSES: "losses, weighting, all that is no other part"}


class Piece(NamedTuple):
    """Some operations of a step, as a function of the step's arguments and of other operations' results.

    Attributes:
      jaxpr: (arguments, fed) -> given.
      fed: results of operations outside the piece that it needs.
      given: results of the piece that the step returns or that operations outside need.
    """

    jaxpr: core.ClosedJaxpr
    fed: tuple[core.Var, ...]
    given: tuple[core.Var, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, over all devices."""
        return count_macs_of(self.jaxpr.jaxpr)


class Dissection:
    """A phase's step, divided into parts.

    Attributes:
      parts: what each part does, in words, by name; the losses last.
      macs: multiply-accumulates of the step, over all devices.
      entangled: names of parts that lie inside an operation, such as a loop, and so cannot be removed.
    """

    def __init__(self, traced: jax.stages.Traced, arguments: tuple):
        """Divides the step. Call this, and the methods, under the step's mesh.

        Args:
          traced: the step, from `Programs.trace`.
          arguments: the step's arguments (moving leaves, resting leaves, constants, batch), on the devices.
        """
        closed = traced.jaxpr
        self._whole = core.ClosedJaxpr(live(closed.jaxpr), closed.consts)
        self.macs = count_macs_of(self._whole.jaxpr)
        self._arguments = jax.tree.leaves(arguments)
        self._donated = [i for i, info in enumerate(jax.tree.leaves(traced.args_info)) if info.donated]
        outputs = self._whole.jaxpr.outvars
        places = [info.sharding for info in jax.tree.leaves(traced.out_info)]
        self._places = {v: place for v, place in zip(outputs, places, strict=True) if isinstance(v, core.Var)}
        self._varying = _varying(self._whole.jaxpr)
        stacks: dict[str, list[str]] = {}
        for equation in self._whole.jaxpr.eqns:
            stack = str(equation.source_info.name_stack)
            stacks.setdefault(part_of(stack) or LOSSES, []).append(stack)
        stacks[LOSSES] = stacks.pop(LOSSES, [])
        self.parts: Mapping[str, str] = {name: _what(name, found) for name, found in stacks.items()}
        self.entangled = sorted(set(_inner_parts(self._whole.jaxpr)) - set(self.parts))

    def without(self, name: str) -> Piece:
        """The step without the named part."""
        return self._cut(lambda part: part != name)

    def alone(self, name: str) -> Piece:
        """The named part without the rest of the step."""
        return self._cut(lambda part: part == name)

    def _cut(self, belongs: Callable[[str], bool]) -> Piece:
        jaxpr = self._whole.jaxpr
        kept: list[core.JaxprEqn] = []
        others: list[core.JaxprEqn] = []
        for equation in jaxpr.eqns:
            # Constant expressions stay in every piece: as arguments they could no longer be folded.
            constant = not any(v in self._varying for v in equation.outvars)
            inside = constant or belongs(part_of(str(equation.source_info.name_stack)) or LOSSES)
            (kept if inside else others).append(equation)
        here = {*jaxpr.constvars, *jaxpr.invars, *(v for equation in kept for v in equation.outvars)}
        fed = tuple(v for v in _used(kept) if v not in here)
        wanted = {*_used(others), *(v for v in jaxpr.outvars if isinstance(v, core.Var))}
        given = tuple(v for e in kept for v in e.outvars if v in wanted and v in self._varying)
        return Piece(self._close([*jaxpr.invars, *fed], given, kept), fed, given)

    def _close(
        self, inputs: Sequence[core.Var], outputs: Sequence[core.Var], equations: Sequence[core.JaxprEqn]
    ) -> core.ClosedJaxpr:
        jaxpr = self._whole.jaxpr.replace(invars=list(inputs), outvars=list(outputs), eqns=list(equations))
        return core.ClosedJaxpr(jaxpr, self._whole.consts)

    @functools.cached_property
    def values(self) -> Mapping[core.Var, Array]:
        """The values that pass between parts, computed by the whole step on its arguments."""
        names = list(dict.fromkeys(v for name in self.parts for v in self.without(name).fed))
        jaxpr = self._close(self._whole.jaxpr.invars, names, self._whole.jaxpr.eqns)
        return dict(zip(names, jax.jit(core.jaxpr_as_fun(jaxpr))(*self._arguments), strict=True))

    def compile(self, piece: Piece, donate: bool = True) -> Callable[[Sequence[Array]], list[Array]]:
        """Compiles a piece to a function of the moving leaves; unless `donate` is off, it donates those it replaces."""
        outputs = self._whole.jaxpr.outvars
        donated = [i for i in self._donated if donate and outputs[i] in piece.given]
        places = [self._places.get(v) for v in piece.given]
        function = jax.jit(core.jaxpr_as_fun(piece.jaxpr), donate_argnums=donated, out_shardings=places)
        rest = [*self._arguments[len(self._donated) :], *(self.values[v] for v in piece.fed)]
        compiled = function.lower(*self._arguments[: len(self._donated)], *rest).compile()
        return lambda moving: compiled(*moving, *rest)


def split_step(
    dissection: Dissection,
    compiled: jax.stages.Compiled,
    arguments: tuple,
    rule: Rule,
    clock: Clock = time.perf_counter,
) -> list[dict[str, Any]]:
    """Times the whole step and the step without each of its parts, taking turns, all on the same state.

    Args:
      dissection: the divided step; call this function under its mesh.
      compiled: the whole step.
      arguments: (moving leaves, resting leaves, constants, batch), which are not changed.
      rule: rounds of warm-up and rounds that count.
      clock: returns seconds.

    Returns:
      For each part {"part", "what", "seconds", "share", "macs"}. The last three say by how much the step is smaller
      without the part: seconds, share of the step's time, multiply-accumulates; None where the part cannot be removed.
    """
    moving, *rest = arguments
    pieces = {name: dissection.without(name) for name in dissection.parts}
    calls = {name: dissection.compile(piece) for name, piece in pieces.items()}
    calls[STEP] = lambda moving: compiled(moving, *rest)
    copy = jax.jit(functools.partial(jax.tree.map, jnp.copy), out_shardings=[leaf.sharding for leaf in moving])
    times = interleave(calls, rule, clock, prepare=lambda: (copy(moving),))
    whole = times[STEP]
    found: list[dict[str, Any]] = [
        {
            "part": name,
            "what": what,
            "seconds": statistics.median(a - b for a, b in zip(whole.seconds, times[name].seconds, strict=True)),
            "share": 1 - ratio(times[name], whole),
            "macs": dissection.macs - pieces[name].macs,
        }
        for name, what in dissection.parts.items()
    ]
    missing = {"what": "not taken apart", "seconds": None, "share": None, "macs": None}
    return [*found, *({"part": name, **missing} for name in dissection.entangled)]


def _what(name: str, stacks: Sequence[str]) -> str:
    """What a part does, in words, from the name stacks of its operations."""
    backward = any("transpose(" in stack for stack in stacks)
    return WHAT.get(name, "forward and backward" if backward else "forward")


def _varying(jaxpr: core.Jaxpr) -> set[core.Var]:
    """The variables that depend on the arguments."""
    found = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if not found.isdisjoint(v for v in equation.invars if isinstance(v, core.Var)):
            found.update(equation.outvars)
    return found


def _used(equations: Sequence[core.JaxprEqn]) -> Sequence[core.Var]:
    """The variables that the operations read, each once."""
    return list(dict.fromkeys(v for equation in equations for v in equation.invars if isinstance(v, core.Var)))


def _inner_parts(jaxpr: core.Jaxpr) -> Iterator[str]:
    """Names of the parts inside operations that themselves belong to no part."""
    for equation in jaxpr.eqns:
        if part_of(str(equation.source_info.name_stack)) is None:
            for inner in core.jaxprs_in_params(equation.params):
                yield from filter(None, (part_of(str(e.source_info.name_stack)) for e in inner.eqns))
                yield from _inner_parts(inner)
