"""SIGTERM and Ctrl-C: the run saves at the end of the step under way and stops, so that nothing learnt is lost.

In one process only. Of several, one that has lost another waits for it inside a step and would never come to a step's
end; there a signal ends the process at once, and the run goes on from its last checkpoint.
"""

import signal
import threading
import types
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run was told to stop, and has saved.

    Attributes:
      signal: by which signal.
      step: the step that it has saved.
    """

    def __init__(self, by: signal.Signals, step: int):
        super().__init__(f"Stopped by {by.name} after step {step}, which is saved.")
        self.signal, self.step = by, step


class StopRequest:
    """Remembers, while its block runs, that the process was told to stop; a second signal acts as without it.

    Does nothing outside the main thread, which alone may listen, and where there are several processes.

    Attributes:
      signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> "StopRequest":
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
