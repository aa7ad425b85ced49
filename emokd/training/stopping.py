"""On SIGTERM and Ctrl-C a run finishes its present step, saves and stops, so that nothing learnt is lost.

This holds for runs of one process only. With several, a process whose peer is gone waits for it inside a step and would
never reach the step's end; there a signal ends the process at once, and the run goes on from its last checkpoint.
"""

import signal
import threading
import types
from collections.abc import Callable
from typing import Any

from absl import logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """Raised where a signal has stopped a run, once it has saved.

    Attributes:
      signal: the signal.
      step: the step that is saved.
    """

    def __init__(self, by: signal.Signals, step: int):
        super().__init__(f"Stopped by {by.name} after step {step}, which is saved.")
        self.signal, self.step = by, step


class StopRequest:
    """A context that catches the first SIGTERM or Ctrl-C and remembers it; a second one has its usual effect.

    It does nothing outside the main thread, where Python allows no signal handlers, and with several processes.

    Attributes:
      signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> "StopRequest":
        import jax  # here, because commands without JAX import this module for `Stopped`

        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        self._restore()
        logging.warning("%s: stopping after this step. Once more stops at once.", self.signal.name)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
