"""Keeps the warnings of a run's log in `WORKDIR/warnings.jsonl`, for its report.

A line is a JSON object: `time` (Unix seconds) and `text`. A run that continues appends to the file.
"""

import contextlib
import json
import logging as python_logging
import pathlib
from collections.abc import Iterator

import jax
from absl import logging

FILE = "warnings.jsonl"
MOST = 1000
"""Lines that one process writes at most; the last one says that there were more."""


class Keeper(python_logging.Handler):
    """Receives the warnings of the log; those that come before `open` are written by it."""

    def __init__(self) -> None:
        super().__init__(level=python_logging.WARNING)
        self._path: pathlib.Path | None = None
        self._waiting: list[str] = []
        self._count = 0

    def open(self, workdir: pathlib.Path) -> None:
        """Writes into a run's folder from now on, in the first process alone."""
        self._path = workdir / FILE if jax.process_index() == 0 else None
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self._append(line)

    def emit(self, record: python_logging.LogRecord) -> None:
        """Keeps one warning."""
        self._count += 1
        if self._count > MOST + 1:
            return
        text = record.getMessage() if self._count <= MOST else f"More than {MOST} warnings; the others are in the log."
        line = json.dumps({"time": round(record.created, 3), "text": text}, ensure_ascii=False)
        if self._path is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def _append(self, line: str) -> None:
        # A warning that cannot be kept is in the log all the same; a full disk is told by what the run itself writes.
        if self._path is not None:
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


@contextlib.contextmanager
def kept() -> Iterator[Keeper]:
    """Keeps the warnings that are logged inside the block, once its keeper has been opened."""
    keeper, logger = Keeper(), logging.get_absl_logger()
    logger.addHandler(keeper)
    try:
        yield keeper
    finally:
        logger.removeHandler(keeper)


def read(workdir: pathlib.Path) -> dict[str, int]:
    """The warnings of a run in the order of their first appearance, and how often each was given.

    Lines that are none, such as one that a crash has cut, are passed over.
    """
    found: dict[str, int] = {}
    path = workdir / FILE
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            text = json.loads(line)["text"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(text, str):
            found[text] = found.get(text, 0) + 1
    return found
