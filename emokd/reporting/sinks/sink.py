"""Where a run's metrics go besides metrics.jsonl: what a sink is, and how one may fail without stopping a run."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from absl import logging

from emokd.files import write_whole

IDS = "sinks.json"
"""In a run's folder: the name under which each service knows the run, so that a run that continues appends to it."""


class Sink(Protocol):
    """A receiver of metrics."""

    def write(self, step: int, phase: str, time: float, values: Mapping[str, float]) -> None:
        """Takes the finite metrics of a step.

        Args:
          step: the global step.
          phase: the phase's name.
          time: Unix seconds.
          values: by name.
        """

    def flush(self) -> None:
        """Hands on what was written so far."""

    def close(self) -> None:
        """Ends the connection; the run may continue later."""


class Guarded:
    """A sink whose failures are told once and counted, and stop nothing."""

    def __init__(self, name: str, open_sink: Callable[[], Sink]):
        """Opens the sink.

        Args:
          name: in messages.
          open_sink: opens it.
        """
        self._name, self._failed, self._sink = name, 0, None
        self._told = False
        self._sink = self._try(open_sink)

    def write(self, step: int, phase: str, time: float, values: Mapping[str, float]) -> None:
        """Writes, or counts that it failed."""
        sink = self._sink
        if sink is None:
            self._failed += 1
        else:
            self._try(lambda: sink.write(step, phase, time, values))

    def flush(self) -> None:
        """Hands on what was written so far."""
        if self._sink is not None:
            self._try(self._sink.flush)

    def close(self) -> None:
        """Closes the sink, and says how much it has lost."""
        if self._sink is not None:
            self._try(self._sink.close)
        if self._failed:
            logging.warning(
                "config.log.sinks: %s failed %d times; what it lacks is in metrics.jsonl.", self._name, self._failed
            )
        self._sink = None

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # whatever a service's library raises, training is worth more
            self._failed += 1
            if not self._told:
                logging.warning(
                    "config.log.sinks: %s failed (%s: %s); the run goes on, and further failures are counted.",
                    *(self._name, type(error).__name__, error),
                )
            self._told = True
            return None


def stored_id(workdir: pathlib.Path, sink: str) -> str:
    """The name under which a service knows the run; empty where it does not know it yet, or the file is damaged."""
    return str(_ids(workdir).get(sink, ""))


def store_id(workdir: pathlib.Path, sink: str, name: str) -> None:
    """Keeps the name under which a service knows the run."""
    write_whole(workdir / IDS, json.dumps({**_ids(workdir), sink: name}) + "\n")


def _ids(workdir: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads((workdir / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
