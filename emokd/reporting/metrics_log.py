"""Writes and reads a run's metrics by step: metrics.jsonl, and what `config.log.sinks` names."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging

from emokd.files import write_whole
from emokd.reporting.sinks.choice import open_sinks
from emokd.reporting.sinks.sink import Guarded

FILE = "metrics.jsonl"
RESERVED = ("step", "phase", "time")
_LAST_STEP = 2**53

Record = dict[str, Any]


class MetricsLog:
    """Writes metrics to `<workdir>/metrics.jsonl`, and to sinks: TensorBoard, Weights & Biases, MLflow.

    Each line of the file is one JSON object: `step`, `phase`, `time` (Unix seconds) and the metrics as
    numbers. JSON has no NaN or infinity: they are written as the strings "nan", "inf" and "-inf", which
    `read_metrics` turns back; sinks do not get them. A sink that fails stops nothing. Only the first of several
    processes writes.

    A context manager; otherwise call `close`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        resume_step: int = 0,
        sinks: Sequence[str] = ("tensorboard",),
        facts: Mapping[str, Any] | None = None,
    ):
        """Opens the log.

        Args:
          workdir: the run's folder.
          resume_step: the global step from which the run continues. Later lines of an interrupted run are
            dropped, and TensorBoard hides its later events; 0 drops all lines, because the run begins anew.
          sinks: names of sinks, which `sinks.choice.check` has checked.
          facts: settings by dotted key, for sinks that show them.
        """
        self._file = None
        self._sinks: list[Guarded] = []
        if jax.process_index() != 0:
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / FILE
        resumed = path.exists()
        if resumed:
            _drop_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        self._sinks = open_sinks(sinks, workdir, resume_step if resumed else None, facts or {})

    def write(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
        """Appends one line.

        Args:
          step: the global step after which the metrics were measured.
          phase: name of the phase.
          metrics: numbers by name; the names `step`, `phase` and `time` are taken.

        Raises:
          ValueError: a metric has a name that is taken.
        """
        taken = sorted(set(metrics) & set(RESERVED))
        if taken:
            raise ValueError(f"A metric cannot be called {taken[0]!r}; every line has a field of that name.")
        if self._file is None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        now = round(time.time(), 3)
        record = {"step": int(step), "phase": phase, "time": now}
        record |= {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for sink in self._sinks:
            sink.write(int(step), phase, now, finite)

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        if self._file is not None:
            self._file.flush()
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        if self._file is not None:
            self._file.close()
        for sink in self._sinks:
            sink.close()
        self._file, self._sinks = None, []

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(workdir: str | os.PathLike[str]) -> list[Record]:
    """The lines of a run's metrics.jsonl as dicts, in order; an empty list where there is no file.

    "nan", "inf" and "-inf" become floats again. Lines that are no record (a crash can cut the last one) are
    skipped with a warning.
    """
    path = pathlib.Path(workdir) / FILE
    return [record for _, record in _records(path)] if path.exists() else []


def _records(path: pathlib.Path) -> list[tuple[str, Record]]:
    found, bad = [], []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            record = _parse(line)
            if record is None:
                bad.append(number)
            else:
                found.append((line, record))
    if bad:
        logging.warning("%s: skipped %d unreadable line(s), the first is line %d.", path, len(bad), bad[0])
    return found


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
        known = isinstance(record, dict) and isinstance(record.get("phase"), str)
        if not known or not isinstance(record.get("step"), int) or abs(record["step"]) > _LAST_STEP:
            return None
        return {name: value if name in RESERVED else float(value) for name, value in record.items()}
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Rewrites the file without the lines after `step`, whole or not at all."""
    kept = [line.rstrip("\n") + "\n" for line, record in _records(path) if step and record["step"] <= step]
    write_whole(path, "".join(kept))
