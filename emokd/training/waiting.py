"""Measures device idle time caused by the input pipeline, which is less than the time that the host waits for it."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

# The host stays at most so many steps ahead of the devices, so that memory stays bounded.
STEPS_AHEAD = 2


class DataWait:
    """Counts the time in which no step runs because the next batch is not ready.

    The host dispatches steps without waiting for them. A thread waits for their results and notes when each was ready.
    Time that the host spends on a batch while a step still runs does not count.

    Attributes:
      seconds: the time so far.
      over: how many steps have finished, and when the last of them did.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        """`clock` gives seconds."""
        self.seconds = 0.0
        self._clock = clock
        self._taken = 0
        self.over: tuple[int, float] = (0, float("-inf"))
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch."""
        begun = self._clock()
        batch = next(batches)
        ready = self._clock()
        steps, ended = self.over
        if steps == self._taken:
            self.seconds += max(0.0, ready - max(begun, ended))
        return batch

    def watch(self, result: jax.Array) -> None:
        """Registers a dispatched step, which has finished when `result` is ready."""
        self._taken += 1
        self._results.put(result)

    def close(self) -> None:
        """Ends the thread, once the dispatched steps have finished."""
        self._results.put(None)
        self._thread.join()

    def _watch(self) -> None:
        over = 0
        while (result := self._results.get()) is not None:
            with contextlib.suppress(Exception):  # a failed step counts as finished; its error reaches whoever reads it
                result.block_until_ready()
            over += 1
            self.over = (over, self._clock())
