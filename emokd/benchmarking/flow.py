"""Steps as training takes them, several under way: how many a second, and how long they wait for data."""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from emokd.benchmarking.timing import Clock, Rule
from emokd.phase import Tree
from emokd.training.waiting import STEPS_AHEAD, DataWait


@dataclasses.dataclass(frozen=True)
class Flow:
    """Steps as training takes them.

    Attributes:
      rate: steps a second.
      waiting: share of the time in which no step ran because the next batch was not there.
    """

    rate: float
    waiting: float


def measure_flow(
    take: Callable[[Tree], Any], batches: Iterator[Tree], rule: Rule, clock: Clock = time.perf_counter
) -> Flow:
    """Takes steps as the training loop does: dispatched, not waited for, the host a few steps ahead.

    Args:
      take: dispatches the step of a batch and returns its results.
      batches: endless.
      rule: how many steps are not timed, and how many are.
      clock: gives seconds.
    """

    def run(steps: int) -> None:
        under_way: collections.deque = collections.deque()
        for _ in range(steps):
            loss = take(wait.next(batches))[1]["loss"]
            wait.watch(loss)
            under_way.append(loss)
            if len(under_way) > STEPS_AHEAD:
                under_way.popleft().block_until_ready()
        jax.block_until_ready(list(under_way))

    with contextlib.closing(DataWait(clock)) as wait:
        run(rule.warmup)
        before, begun = wait.seconds, clock()
        run(rule.steps)
        seconds = clock() - begun
        return Flow(rule.steps / seconds, (wait.seconds - before) / seconds)
