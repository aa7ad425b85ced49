"""What a run raises when a signal has stopped it. Commands without JAX catch it too, so nothing here imports JAX."""

import signal


class Stopped(Exception):
    """Raised where a signal has stopped a run, once it has saved.

    Attributes:
      signal: the signal.
      step: the step that is saved.
    """

    def __init__(self, by: signal.Signals, step: int):
        super().__init__(f"Stopped by {by.name} after step {step}, which is saved.")
        self.signal, self.step = by, step
