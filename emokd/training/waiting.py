"""How long devices stand still for want of data, which is less than how long the host waits for it."""

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
    """Counts the time in which no step runs because the next batch is not there.

    Steps are dispatched and not waited for. A thread of its own waits for their results and notes when they were
    there; what the host spends on a batch while a step still runs costs nothing.

    Attributes:
      seconds: the time so far.
      over: how many steps are over, and when the last of them was.
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
        """A step was dispatched whose end is that of `result`."""
        self._taken += 1
        self._results.put(result)

    def close(self) -> None:
        """Ends the thread, once the steps under way are over."""
        self._results.put(None)
        self._thread.join()

    def _watch(self) -> None:
        over = 0
        while (result := self._results.get()) is not None:
            with contextlib.suppress(Exception):  # a step that failed is over; who reads its results is told why
                result.block_until_ready()
            over += 1
            self.over = (over, self._clock())
