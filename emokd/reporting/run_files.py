"""What a run's folder holds for its report: everything that is there, and a sentence for everything that is not."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from emokd.files import has_changed
from emokd.reporting import kept_warnings
from emokd.reporting.metrics_log import Record, read_metrics

Object = Mapping[str, Any]


class Missing(Exception):
    """A part of the report cannot be made; its text says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class RunFiles:
    """The files of a run, as far as they are there.

    Attributes:
      workdir: the run's folder.
      config: its configuration; empty where it is missing.
      scores: its scores; empty where it is missing.
      problems: why a file is empty, by its name.
      records: the lines of its metrics.
      began: what it began with; empty where that is not recorded.
      spec: its student's specification; empty before there is a student.
      warnings: those of its log, and how often each was given.
    """

    workdir: pathlib.Path
    config: Object
    scores: Object
    problems: Mapping[str, str]
    records: Sequence[Record]
    began: Object
    spec: Object
    warnings: Mapping[str, int]

    @classmethod
    def read(cls, workdir: pathlib.Path) -> "RunFiles":
        """Reads what is there; the run may be under way."""
        problems: dict[str, str] = {}

        def content(name: str) -> dict[str, Any]:
            found, problem = read_object(workdir / name)
            if problem:
                problems[name] = problem
            return found

        return cls(
            workdir=workdir,
            config=content("config.json"),
            scores=content("scores.json"),
            records=read_metrics(workdir),
            began=content("began_with.json"),
            spec=mapping(content("student/model.json").get("spec")),
            warnings=kept_warnings.read(workdir),
            problems=problems,
        )

    def require_scores(self) -> Object:
        """The scores.

        Raises:
          Missing: there are none.
        """
        if "scores.json" in self.problems:
            raise Missing(f"{self.problems['scores.json']} The student is scored when training ends.")
        return self.scores

    def phases(self) -> list[tuple[str, int, int]]:
        """(name, first step, last step) of each phase in the log, in order, see `phase_spans`."""
        return phase_spans(self.records)


def read_object(path: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Reads a JSON object: (content, problem); the problem is empty where there is none."""
    if not path.exists():
        return {}, f"There is no {path.name} yet."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        return {}, f"{path.name} cannot be read: {error}."
    if not isinstance(content, dict):
        return {}, f"{path.name} is not a JSON object."
    if has_changed(path):
        return {}, f"{path.name} is not what was written (its sha256 differs)."
    return content, ""


def mapping(value: Any) -> Object:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def phase_spans(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """(name, first step, last step) of each phase in order; a phase begins where the one before it ended."""
    last: dict[str, int] = {}
    for record in records:
        last[record["phase"]] = max(record["step"], last.get(record["phase"], 0))
    spans, begin = [], 0
    for name, end in last.items():
        spans.append((name, begin, end))
        begin = end
    return spans
