"""Shows the progress of a run: one live line on a terminal, occasional plain lines elsewhere."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import jax
from absl import logging
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emokd.reporting.pace import Clock, Pace

PLAIN_SECONDS = 20.0
"""Least time between two plain lines of a phase; its first and last line are always written."""


class Display(Protocol):
    """Where a progress line goes."""

    def line(self, text: str, done: int, total: int, *, always: bool) -> None:
        """Shows the line; one that is not `always` may be left out."""

    def note(self, text: str) -> None:
        """Writes a line that stays."""

    def close(self) -> None:
        """Ends the display; more lines may follow and open it again."""


class Progress:
    """Counts the steps of a run's phases and shows how it goes.

    A line has the phase, its steps, the losses, examples per second and device (without compilation, the
    first step and pauses), the share of the time in which devices waited for data, and an estimate of the
    time left in the whole run, which assumes the present pace for later phases.
    """

    def __init__(
        self,
        phases: Sequence[tuple[str, int]],
        *,
        batch_size: int,
        devices: int | None = None,
        clock: Clock = time.perf_counter,
        display: Display | None = None,
    ):
        """Makes the progress of a run, before its first phase.

        Args:
          phases: (name, steps) in order.
          batch_size: examples in a step, over all devices and processes.
          devices: how many devices share a step; None for all that JAX has.
          clock: gives seconds.
          display: where lines go; None for the terminal where standard error is one, else the log.
        """
        self._phases = list(phases)
        self._batch_size = batch_size
        self._devices = devices if devices is not None else jax.device_count()
        self._clock = clock
        self._display = display if display is not None else create_display(clock)
        self._pace = Pace(batch_size, self._devices, clock)
        self._index, self._step = 0, 0
        self._shown_first = False
        self._recent: tuple[float, float] | None = None
        self._metrics: Mapping[str, float] = {}

    def begin(self, phase: str, step: int = 0) -> None:
        """Begins a phase, or continues it.

        Args:
          phase: its name.
          step: steps of it already taken.
        """
        self._index = [name for name, _ in self._phases].index(phase)
        self._step = step
        self._pace = Pace(self._batch_size, self._devices, self._clock)
        self._recent, self._shown_first, self._metrics = None, False, {}

    def step(self, *, waited: float = 0.0) -> None:
        """Counts a step; `waited` is the total of seconds in which devices waited for data in this phase."""
        self._step += 1
        self._pace.step(waited)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside the block, such as an evaluation, does not count in rates."""
        with self._pace.pause():
            yield

    def speed(self) -> dict[str, float]:
        """`examples_per_second_per_device` and `data_wait_share` since the last call; empty where no step counted."""
        recent = self._pace.recent()
        if recent is None:
            return {}
        self._recent = recent
        return {"examples_per_second_per_device": recent[0], "data_wait_share": recent[1]}

    def show(self, metrics: Mapping[str, float]) -> None:
        """Shows the line, with the losses among `metrics`: "loss" and its terms, "loss/<term>"."""
        self._metrics = metrics
        total = self._phases[self._index][1]
        self._display.line(self.text(), self._step, total, always=not self._shown_first or self._step >= total)
        self._shown_first = True

    def text(self) -> str:
        """The line as it stands."""
        name, total = self._phases[self._index]
        parts = [f"{name} {self._step}/{total}"]
        parts += losses_text(self._metrics)
        if self._recent is not None:
            rate, share = self._recent
            parts += [f"{rate:.3g} examples/s/device", f"data wait {share:.0%}"]
        left = total - self._step + sum(steps for _, steps in self._phases[self._index + 1 :])
        seconds = self._pace.remaining(left)
        if seconds is not None and left:
            parts.append(f"about {duration_text(seconds)} left")
        return "  ".join(parts)

    def note(self, text: str) -> None:
        """Writes a line that stays, such as a validation score."""
        name, total = self._phases[self._index]
        self._display.note(f"{name} {self._step}/{total}  {text}")

    def end(self) -> None:
        """Ends the phase; the line of its last step stays."""
        self._display.close()

    def close(self) -> None:
        """Ends the display, also after an error."""
        self._display.close()


def losses_text(metrics: Mapping[str, float]) -> list[str]:
    """The total loss and, where there are several, its terms; teachers' own losses are left to the log."""
    terms = [
        f"{name.removeprefix('loss/')} {value:.4g}"
        for name, value in metrics.items()
        if name.startswith("loss/") and not name.startswith("loss/teacher/")
    ]
    total = [f"loss {metrics['loss']:.4g}"] if "loss" in metrics else []
    return [*total, f"({', '.join(terms)})"] if len(terms) > 1 else total


def duration_text(seconds: float) -> str:
    """A duration to read: "45 s", "3 min", "2 h 05 min"."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 59.5:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def create_display(clock: Clock = time.perf_counter) -> Display:
    """The display for this process: silent but in the first, live on a terminal, plain lines in the log elsewhere."""
    if jax.process_index() != 0:
        return SilentDisplay()
    console = Console(stderr=True)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(clock=clock)


class SilentDisplay:
    """Shows nothing."""

    def line(self, text: str, done: int, total: int, *, always: bool) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class PlainDisplay:
    """Lines in the log, at least PLAIN_SECONDS apart."""

    def __init__(
        self,
        write: Callable[[str], None] = lambda text: logging.info("%s", text),
        clock: Clock = time.perf_counter,
    ):
        self._write, self._clock = write, clock
        self._last = -math.inf

    def line(self, text: str, done: int, total: int, *, always: bool) -> None:
        """Writes the line if it must be shown or the last one is long enough ago."""
        now = self._clock()
        if always or now - self._last >= PLAIN_SECONDS:
            self._last = now
            self._write(text)

    def note(self, text: str) -> None:
        """Writes the line."""
        self._write(text)

    def close(self) -> None:
        """Nothing is open."""


class LiveDisplay:
    """One line with a bar that rich keeps at the bottom of the terminal; log lines pass above it."""

    def __init__(self, console: Console):
        self._console = console
        self._live: Live | None = None
        self._log_stream = None

    def line(self, text: str, done: int, total: int, *, always: bool) -> None:
        """Redraws the line."""
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=total, completed=done, width=20), Text(text))
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
            # absl's handler holds the original stream: it must write through rich, or it would break the line.
            handler = logging.get_absl_handler().python_handler
            self._log_stream = handler.setStream(sys.stderr)
        self._live.update(row)

    def note(self, text: str) -> None:
        """Writes the line above the live one."""
        self._console.print(Text(text))

    def close(self) -> None:
        """Leaves the last line where it is, and gives the log its stream back."""
        if self._live is None:
            return
        if self._log_stream is not None:
            logging.get_absl_handler().python_handler.setStream(self._log_stream)
        self._live.stop()
        self._live, self._log_stream = None, None
