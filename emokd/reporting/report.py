"""Writes report.html: one self-contained page about a run, as far as it has come."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emokd.errors import InputError
from emokd.files import write_whole
from emokd.reporting import observations
from emokd.reporting.page import (
    answers,
    confusion,
    curves,
    data,
    everything,
    representations,
    settings,
    speed,
    usage,
    verdict,
    warnings,
    weights,
)
from emokd.reporting.page.answers import Thumbnails
from emokd.reporting.page.blocks import Block, Text
from emokd.reporting.page.environment import environment
from emokd.reporting.run_files import Missing, RunFiles
from emokd.reporting.scoreboard import MISSHAPEN

OPTIONAL = ("affect", "representations")
"""Sections that are left out where a run has nothing for them."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page: the end of its address, its heading, what is in it."""

    id: str
    title: str
    blocks: Sequence[Block]


def write_report(
    workdir: pathlib.Path,
    remarks: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
    thumbnails: Thumbnails | None = None,
) -> pathlib.Path:
    """Writes `report.html` into a run's folder, whole or not at all, and returns its path.

    The pictures of the run's observations are written beside it, and are in it too. The run may be under way: several
    processes may write the report at the same time.

    Args:
      workdir: the run's folder.
      remarks: sentences to show above the scores, besides the changes of data that the scores themselves list.
      defaults: the configuration of the run's recipe by default; None where it is not known.
      thumbnails: pictures of the scored split, to be shown where the student is wrong; None for no pictures.

    Raises:
      InputError: there is no such folder, nothing of a run is in it, or an observation cannot be read.
    """
    if not workdir.is_dir():
        raise InputError(f"There is no folder {workdir}. Give the --workdir of a run.")
    if not any((workdir / name).exists() for name in ("config.json", "metrics.jsonl", "scores.json")):
        raise InputError(f"{workdir} holds no run: no config.json, no metrics.jsonl, no scores.json.")
    observations.write_pictures(workdir)
    path = workdir / "report.html"
    write_whole(path, render_report(workdir, remarks, defaults=defaults, thumbnails=thumbnails))
    return path


def render_report(
    workdir: pathlib.Path,
    remarks: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
    thumbnails: Thumbnails | None = None,
) -> str:
    """The page's HTML. Where a file is missing or unreadable, the page says so in its place."""
    run = RunFiles.read(workdir)
    makers: dict[str, tuple[str, Callable[[], Sequence[Block]]]] = {
        "scores": ("Scores", lambda: verdict.blocks(run)),
        "warnings": ("Warnings", lambda: warnings.blocks(run)),
        "curves": ("Curves", lambda: curves.blocks(run)),
        "weights": ("Teachers' weights", lambda: weights.blocks(run)),
        "confusion": ("Confusion", lambda: confusion.blocks(run)),
        "calibration": ("Calibration", lambda: answers.calibration(run)),
        "affect": ("Valence and arousal", lambda: answers.affect(run)),
        "mistakes": ("Most confident mistakes", lambda: answers.mistakes(run, thumbnails)),
        "representations": ("Representations", lambda: representations.blocks(run)),
        "speed": ("Speed and memory", lambda: speed.blocks(run)),
        "data": ("Data", lambda: data.blocks(run)),
        "use": ("Use the student", lambda: usage.blocks(run)),
        "configuration": ("Configuration", lambda: settings.blocks(run, defaults)),
        "all": ("All scores", lambda: everything.all_scores(run)),
        "about": ("About this report", everything.about),
    }
    sections = [Section(name, title, _drawn(make)) for name, (title, make) in makers.items()]
    title = f"emokd: {workdir.absolute().name}"
    return (
        environment()
        .get_template("report.html")
        .render(
            title=title,
            facts=verdict.facts(run),
            notices=verdict.notices(run, remarks),
            sections=[section for section in sections if section.blocks or section.id not in OPTIONAL],
        )
    )


def _drawn(make: Callable[[], Sequence[Block]]) -> Sequence[Block]:
    """A section's blocks; where its files are missing or damaged, the page says so in its place."""
    try:
        return make()
    except Missing as missing:
        return [Text(str(missing), "missing")]
    except MISSHAPEN as error:
        return [Text(f"A file of the run is damaged, or of another version of emokd: {error}.", "missing")]
