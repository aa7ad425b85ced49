"""A run that is finished: whether it still is what it began with, and what of it is missing."""

import json
import pathlib
from collections.abc import Callable

import ml_collections

from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs import began
from emokd.jobs.workdir import RECORD, claim, read_config, read_json, write_atomically
from emokd.reporting.report import write_report
from emokd.reporting.scoreboard import accepted_texts
from emokd.weights import model_folder


def is_finished(workdir: pathlib.Path) -> bool:
    """Whether the run in `workdir` has its scores and its student.

    Without its student it is not: the student is made again from the checkpoints.

    Raises:
      InputError: it has scores, but neither its student nor the checkpoints to make it of.
    """
    if not (workdir / "scores.json").exists():
        return False
    if (workdir / "student").exists():
        return True
    if not (workdir / "checkpoints").exists():
        raise InputError(
            f"{workdir} has scores.json, but neither its student nor the checkpoints of which it could be made again. "
            "Restore one of them, use another --workdir, or remove scores.json to train anew."
        )
    return False


def look(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    load_data: Callable[[], tuple[dict[str, Examples], Examples | None]],
    report: bool,
    accept: bool,
) -> None:
    """Checks that a finished run is whole and of what it began with; makes its page where that is missing.

    Args:
      config: the run's configuration.
      workdir: its folder.
      load_data: gives its splits and its unlabelled pictures.
      report: whether it is to have a page.
      accept: mark its scores where something differs from what it began with, in place of refusing.

    Raises:
      InputError: its scores or its student are damaged, or something differs and is not accepted.
    """
    scores = read_scores(workdir)
    try:
        model_folder.load_model(workdir / "student")
    except InputError as error:
        raise InputError(
            f"{error} Or remove {workdir / 'student'}: training with the run's configuration then makes it again from "
            "the checkpoints."
        ) from error
    changes: list[str] = []
    if began.read(workdir) is None:
        began.compare(workdir, {}, accept)  # which says so
    else:
        changes = began.compare(workdir, began.describe(config, *load_data()), accept)
    if changes:
        began.note(workdir, changes)
        scores["accepted_changes"] = list(dict.fromkeys([*scores.get("accepted_changes", []), *changes]))
        write_atomically(workdir / "scores.json", json.dumps(scores, indent=2))
    claim(workdir, config)  # where config.json had been lost
    if report and (changes or not (workdir / "report.html").exists()):
        write_report(workdir)


def remarks(workdir: pathlib.Path, accept: bool) -> list[str]:
    """What the page of a run has to say of the data that the run began with.

    Args:
      workdir: the run's folder.
      accept: say what has changed, in place of refusing.

    Raises:
      InputError: the data have changed, which is not accepted.
    """
    if not (workdir / RECORD).exists():
        return []
    # A page of a run without a record needs neither models nor data: they are imported here alone.
    from emokd.jobs.datasets import load_data

    config = read_config(workdir / "config.json")
    try:
        data = load_data(config)
    except InputError as error:
        return [f"The data could not be compared with what the run began with: {error}"]
    now = {**began.describe(config, *data), "devices": None}
    changes = dict.fromkeys([*began.accepted(workdir), *began.compare(workdir, now, accept)])
    return accepted_texts(changes)


def read_scores(workdir: pathlib.Path) -> dict:
    """The scores of a finished run.

    Raises:
      InputError: they are damaged.
    """
    remedy = (
        "Restore it, or remove it: training with the run's configuration then scores it again from the checkpoints."
    )
    return read_json(workdir / "scores.json", remedy)
