"""Measures steps as training runs them, with several dispatched: steps per second, and time spent waiting for data."""

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
    """Throughput of steps, run as in training.

    Attributes:
      rate: steps per second.
      waiting: share of the time in which no step ran because the next batch was not ready.
    """

    rate: float
    waiting: float


def measure_flow(
    take: Callable[[Tree], Any], batches: Iterator[Tree], rule: Rule, clock: Clock = time.perf_counter
) -> Flow:
    """Runs steps as the training loop does: the host dispatches them without waiting, a few steps ahead.

    Args:
      take: dispatches the step on a batch and returns its results.
      batches: an endless iterator.
      rule: the numbers of warm-up steps and of timed steps.
      clock: returns seconds.
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
