"""How long a call takes: the warm-up rule, medians, and calls timed in turn so that they can be compared."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from emokd.errors import InputError

Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which calls are timed: not the first `warmup`, but the `steps` after them.

    Raises:
      InputError: a negative warm-up, or no step at all.
    """

    warmup: int = 3
    steps: int = 20

    def __post_init__(self):
        if self.warmup < 0 or self.steps < 1:
            raise InputError(
                f"{self.warmup} steps of warm-up and {self.steps} timed ones: give --warmup=0 or more, --steps=1 or "
                "more."
            )

    def text(self) -> str:
        """The rule in words."""
        return (
            f"the first {self.warmup} calls are not timed, the next {self.steps} are, each from its call until its "
            "results are there; what is given is their median"
        )


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of each timed call, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile; of one call, that call twice."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def interleave(
    calls: Mapping[str, Callable[..., Any]],
    rule: Rule,
    clock: Clock = time.perf_counter,
    *,
    rest: float = 0.0,
    prepare: Callable[[], tuple[Any, ...]] = tuple,
) -> dict[str, Timing]:
    """Times each call once per round, so that whatever slows the machine for a while slows all of them.

    Args:
      calls: functions that dispatch work to the device and return its results.
      rule: rounds of warm-up and rounds that count.
      clock: gives seconds.
      rest: seconds of real time before each call, not timed, in which other calls' threads come to rest.
      prepare: makes the arguments of each call, before it and not timed; none unless it is given.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rule.warmup + rule.steps):
        for name, call in calls.items():
            if rest:
                time.sleep(rest)
            arguments = jax.block_until_ready(prepare())
            begun = clock()
            jax.block_until_ready(call(*arguments))
            seconds = clock() - begun
            if turn >= rule.warmup:
                found[name].append(seconds)
    return {name: Timing(tuple(seconds)) for name, seconds in found.items()}


def ratio(part: Timing, whole: Timing) -> float:
    """The median over rounds of part / whole; both from one `interleave`."""
    return statistics.median(p / w for p, w in zip(part.seconds, whole.seconds, strict=True))
