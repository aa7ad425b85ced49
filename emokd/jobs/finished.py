"""Checks of a run's folder: whether the run is finished, whether its data have changed, what is missing."""

import json
import pathlib
from collections.abc import Callable

import ml_collections

from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.files import has_changed, write_with_sum
from emokd.jobs import began
from emokd.jobs.page import write_page
from emokd.jobs.record import read as read_record
from emokd.jobs.workdir import claim, read_config, read_json
from emokd.reporting.scoreboard import MISSHAPEN, accepted_texts, scoreboard
from emokd.weights import model_folder

LoadData = Callable[[ml_collections.ConfigDict], tuple[dict[str, Examples], Examples | None]]
"""configuration -> (its splits, its unlabelled pictures where it has any)."""


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
    load_data: LoadData,
    report: bool,
    accept: bool,
) -> None:
    """Checks that a finished run is complete and its data unchanged; writes its report where that is missing.

    Args:
      config: the run's configuration.
      workdir: its folder.
      load_data: loads its splits and its unlabelled pictures.
      report: whether it is to have a report.
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
    if read_record(workdir) is None:
        began.compare(workdir, {}, accept)  # logs that nothing can be compared
    else:
        changes = began.compare(workdir, began.describe(config, *load_data(config)), accept)
    if changes:
        began.note(workdir, changes)
        scores["accepted_changes"] = list(dict.fromkeys([*scores.get("accepted_changes", []), *changes]))
        write_with_sum(workdir / "scores.json", json.dumps(scores, indent=2))
    claim(workdir, config)  # writes config.json where it was lost
    if report and (changes or not (workdir / "report.html").exists()):
        write_page(workdir)


def read_scores(workdir: pathlib.Path) -> dict:
    """The scores of a finished run.

    Raises:
      InputError: they are damaged.
    """
    remedy = (
        "Restore it, or remove it: training with the run's configuration then scores it again from the checkpoints."
    )
    scores = read_json(workdir / "scores.json", remedy)
    for name in ("student", "baseline", "teachers", "variants", "weights"):
        networks = scores.get(name, {})
        entries = (
            networks.values() if isinstance(networks, dict) and name not in ("student", "baseline") else [networks]
        )
        if not isinstance(networks, dict) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{workdir / 'scores.json'}: {name!r} holds no scores. {remedy}")
    if not scores.get("student") or not _are_texts(scores.get("remarks", [])):
        raise InputError(f"{workdir / 'scores.json'} holds no scores of a student, or remarks that are none. {remedy}")
    try:
        scoreboard(scores)
    except MISSHAPEN as error:
        raise InputError(f"{workdir / 'scores.json'} holds something else than scores: {error}. {remedy}") from error
    if has_changed(workdir / "scores.json"):
        raise InputError(f"{workdir / 'scores.json'} is not what was written (its sha256 differs). {remedy}")
    return scores


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def remarks(workdir: pathlib.Path, load_data: LoadData, accept: bool) -> list[str]:
    """Remarks for the report of a run, finished or not, on differences from what the run began with.

    Where the data are missing, as on another machine, the remark is that they could not be compared.

    Args:
      workdir: the run's folder, with a record.
      load_data: loads its splits and its unlabelled pictures.
      accept: return what differs, in place of refusing.

    Raises:
      InputError: something differs and is not accepted.
    """
    config = read_config(workdir / "config.json")
    try:
        data = load_data(config)
    except InputError as error:
        return [f"The data could not be compared with what the run began with: {error}"]
    now = began.describe(config, *data)
    return accepted_texts(dict.fromkeys([*began.accepted(workdir), *began.compare(workdir, now, accept)]))
