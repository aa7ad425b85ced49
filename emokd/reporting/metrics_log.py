"""Writes and reads a run's metrics by step: metrics.jsonl, and TensorBoard events."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from absl import logging

from emokd.files import write_whole


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch from imports inside the block.

    tensorboardX imports PyTorch (seconds) where it is installed, in order to accept tensors, and works without it. No
    tensors are written here.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes Python raise ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules["torch"]


with _without_torch():
    from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"
RESERVED = ("step", "phase", "time")
_LAST_STEP = 2**53

Record = dict[str, Any]


class MetricsLog:
    """Writes metrics to `<workdir>/metrics.jsonl` and `<workdir>/tensorboard`.

    Each line of the file is one JSON object: `step`, `phase`, `time` (Unix seconds) and the metrics as
    numbers. JSON has no NaN or infinity: they are written as the strings "nan", "inf" and "-inf", which
    `read_metrics` turns back; TensorBoard does not get them. Only the first of several processes writes.

    A context manager; otherwise call `close`.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, resume_step: int = 0):
        """Opens the log.

        Args:
          workdir: the run's folder.
          resume_step: the global step from which the run continues. Later lines of an interrupted run are
            dropped, and TensorBoard hides its later events; 0 drops all lines, because the run begins anew.
        """
        self._file = None
        self._events = None
        if jax.process_index() != 0:
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / FILE
        resumed = path.exists()
        if resumed:
            _drop_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1 if resumed else None)
        except BaseException:
            self._file.close()
            raise

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
        if self._file is None or self._events is None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        record = {"step": int(step), "phase": phase, "time": round(time.time(), 3)}
        record |= {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            if math.isfinite(value):
                self._events.add_scalar(name, value, int(step), walltime=record["time"])

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        if self._file is not None and self._events is not None:
            self._file.flush()
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        if self._file is not None and self._events is not None:
            try:
                self._file.close()
            finally:
                self._events.close()
        self._file = self._events = None

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
