"""Measures how fast a run is: a chronometer that can be paused, and rates of steps."""

import contextlib
import time
from collections.abc import Callable, Iterator

Clock = Callable[[], float]


class Chronometer:
    """Measures the seconds since `start`, without pauses."""

    def __init__(self, clock: Clock = time.perf_counter):
        self._clock = clock
        self._started: float | None = None
        self._paused_since: float | None = None
        self._paused = 0.0

    def start(self) -> None:
        """Starts from zero."""
        self._started, self._paused_since, self._paused = self._clock(), None, 0.0

    @property
    def wall(self) -> float:
        """Seconds since the start, pauses included; 0 before it."""
        return 0.0 if self._started is None else self._clock() - self._started

    @property
    def seconds(self) -> float:
        """Seconds since the start, without the pauses; 0 before it."""
        paused = self._paused
        if self._paused_since is not None:
            paused += self._clock() - self._paused_since
        return self.wall - paused if self._started is not None else 0.0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside the block does not count. Pauses may nest."""
        if self._started is None or self._paused_since is not None:
            yield
            return
        self._paused_since = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - self._paused_since
            self._paused_since = None


class Pace:
    """Rates within one phase.

    The first step is warm-up: time and steps count from its end, so that neither compilation nor the filling of
    the data pipeline is counted as training. Rates are None until a second step has been taken.
    """

    def __init__(self, batch_size: int, devices: int, clock: Clock = time.perf_counter):
        """Starts before the first step.

        Args:
          batch_size: examples in a step, over all devices and processes.
          devices: how many devices share it.
          clock: gives seconds.
        """
        self._examples_per_step = batch_size / devices
        self._chronometer = Chronometer(clock)
        self._steps = -1
        self._waited_before = 0.0
        self._waited = 0.0
        self._mark = (0, 0.0, 0.0)

    def step(self, waited: float = 0.0) -> None:
        """Counts a step.

        Args:
          waited: total seconds so far in which devices were idle because the next batch was missing.
        """
        self._steps += 1
        if self._steps == 0:
            self._chronometer.start()
            self._waited_before = waited
        self._waited = waited - self._waited_before

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """Time inside the block (evaluating, saving) is not training time."""
        return self._chronometer.pause()

    def recent(self) -> tuple[float, float] | None:
        """(examples per second and device, share of the time that devices waited for data) since the last call.

        None where no step after the warm-up was counted since then.
        """
        steps, seconds, waited = max(self._steps, 0), self._chronometer.seconds, self._waited
        past_steps, past_seconds, past_waited = self._mark
        self._mark = (steps, seconds, waited)
        if steps == past_steps or seconds <= past_seconds:
            return None
        elapsed = seconds - past_seconds
        share = min(max((waited - past_waited) / elapsed, 0.0), 1.0)
        return (steps - past_steps) * self._examples_per_step / elapsed, share

    def remaining(self, steps: int) -> float | None:
        """Seconds that `steps` more steps will take at the pace so far, including pauses such as evaluations.

        None before the second step.
        """
        if steps == 0:
            return 0.0
        return self._chronometer.wall / self._steps * steps if self._steps > 0 else None
