"""On SIGTERM and Ctrl-C a run finishes its present step, saves and stops, so that nothing learnt is lost.

Of several processes one may get the signal, as where one machine of a cluster is taken away, or all at different
moments. So each step asks all of them: the largest signal number over the processes, computed on the devices beside the
steps. Its answer is read two steps later, when it is there anyway, and is the same everywhere, so all stop after the
same step. Where a process is gone, `emokd.training.peers` ends the others.
"""

import collections
import os
import signal
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from emokd.training.sharding import batch_sharding, replicated
from emokd.training.waiting import STEPS_AHEAD

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONCE_SECONDS = 1.0
"""The same request may come twice, from a terminal and from a launcher; so soon after the first it is not another."""


class StopRequest:
    """A context that catches the first SIGTERM or Ctrl-C and remembers it; a later one has its usual effect.

    It catches nothing outside the main thread, where Python allows no signal handlers.

    Attributes:
      signal: the signal that came to this process, or None.
    """

    def __init__(self, mesh: Mesh | None = None):
        """`mesh` has the devices of the run; it is needed with several processes."""
        self.signal: signal.Signals | None = None
        self._came = 0.0
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
        self._ask = _Vote(mesh) if mesh is not None and jax.process_count() > 1 else None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def agreed(self, now: bool) -> signal.Signals | None:
        """The signal for which the run is to stop after the present step, or None; the same in every process.

        With several processes, all call it after each step, with the same argument.

        Args:
          now: wait for the answer of this step; otherwise a signal may be reported two steps later.
        """
        if self._ask is None:
            return self.signal
        number = self._ask(0 if self.signal is None else int(self.signal), now)
        return signal.Signals(number) if number else None

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self.signal is None:
            self.signal, self._came = signal.Signals(number), time.monotonic()
            logging.warning("%s: stopping after this step. Once more stops at once.", self.signal.name)
        elif time.monotonic() - self._came > ONCE_SECONDS:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


class _Vote:
    """The largest of the numbers that the processes give, in every process."""

    def __init__(self, mesh: Mesh):
        self._sharding = batch_sharding(mesh)
        self._maximum = jax.jit(lambda numbers: numbers.max(), out_shardings=replicated(mesh))
        self._numbers: dict[int, jax.Array] = {}
        self._answers: collections.deque[jax.Array] = collections.deque()
        self._local = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)

    def __call__(self, number: int, now: bool) -> int:
        if number not in self._numbers:
            with jax.transfer_guard_host_to_device("allow"):
                values = np.full(self._local, number, np.int32)
                self._numbers[number] = jax.make_array_from_process_local_data(self._sharding, values)
        self._answers.append(self._maximum(self._numbers[number]))
        if now:  # what was asked before is in this answer too
            answer = self._answers.pop()
            self._answers.clear()
        elif len(self._answers) > STEPS_AHEAD:
            answer = self._answers.popleft()
        else:
            return 0
        return int(jax.device_get(answer))
