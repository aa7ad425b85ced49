"""Times calls: the warm-up rule, medians, and calls that take turns so that their times can be compared."""

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
    """The timing rule: the first `warmup` calls are not timed, the next `steps` are.

    Raises:
      InputError: `warmup` is negative, or `steps` is below 1.
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
        """The median, seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile, seconds; of a single call, its time twice."""
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
    """Times each call once per round, so that a temporary slowdown of the machine affects all of them alike.

    Args:
      calls: functions that dispatch work to the device and return its results.
      rule: rounds of warm-up and rounds that count.
      clock: returns seconds.
      rest: seconds of pause before each call, not timed, in which threads of other calls become idle.
      prepare: makes each call's arguments before the timing begins; by default there are none.
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
