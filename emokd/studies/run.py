"""A study's runs one after another, and the table of those that are finished."""

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import logging

from emokd.errors import InputError
from emokd.files import has_changed, write_whole
from emokd.jobs import available_teachers, began
from emokd.jobs.record import Record
from emokd.jobs.record import read as read_record
from emokd.jobs.workdir import check, read_json, stored_config
from emokd.reporting.progress import duration_text
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table
from emokd.studies import plan as study_plan
from emokd.studies.plan import Run, Study, check_variants
from emokd.studies.table import Result, results_csv, study_table
from emokd.training import memory

Train = Callable[[ml_collections.ConfigDict, str], Any]

AGAIN = "Remove the folder to run it again."

RECORD = "study_run.json"
"""In a run's folder: how long it took, and where and when."""


def run_study(
    study: Study,
    workdir: pathlib.Path,
    *,
    train: Train,
    only: Sequence[str] = (),
    accept_changed_data: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Runs a study's unfinished runs, and returns its table as Markdown.

    Args:
      study: what to run.
      workdir: its folder.
      train: (configuration, workdir) -> scores, which it also writes to `scores.json` in that workdir.
      only: variants to run; none for all.
      accept_changed_data: go on although runs began with different data; the table then says so.
      clock: gives seconds.

    Raises:
      InputError: a folder holds a run of another configuration, runs of one configuration of data began with
        different data, or a run's input is wrong; what was finished before stays.
    """
    check_variants(only, study.variants)
    for planned in study.runs:
        if (folder_of(workdir, planned) / "config.json").exists():
            folder = folder_of(workdir, planned)
            check(folder, available_teachers.choose(planned.config, folder))
    known: dict[str, tuple[str, Record]] = {}
    changes = [
        change
        for planned in study.runs
        if (folder_of(workdir, planned) / "scores.json").exists()
        for change in _compare_data(folder_of(workdir, planned), known, accept_changed_data)
    ]
    waiting = [r for r in _chosen(study, only) if not (folder_of(workdir, r) / "scores.json").exists()]
    teachers: dict[str, tuple[pathlib.Path, list[str]]] = {}
    for planned in study.runs:
        if (folder_of(workdir, planned) / "config.json").exists():
            # Where nothing is left to run the table is what is wanted.
            changes += _compare_teachers(planned, workdir, teachers, accept_changed_data or not waiting)
    done, table = collect(study, workdir), ""
    if done:  # a study whose first run is refused leaves no table behind
        table = write_results(study, workdir, done, changes)
    while waiting:
        planned = waiting.pop(0)
        changes += _compare_teachers(planned, workdir, teachers, accept_changed_data)
        one_run(planned, workdir, train, clock)
        changes += _compare_data(folder_of(workdir, planned), known, accept_changed_data)
        done = collect(study, workdir)
        table = write_results(study, workdir, done, changes)
        left = estimate_seconds(done, waiting)
        logging.info(
            "Study: %d of %d runs finished%s.",
            len(done),
            len(study.runs),
            "" if left is None or not waiting else f", {len(waiting)} to go, about {duration_text(left)}",
        )
    return table


def one_run(planned: Run, workdir: pathlib.Path, train: Train, clock: Callable[[], float]) -> None:
    """Does a run of a study in its folder, notes how long it took, and frees what it held.

    Raises:
      InputError: the run's input is wrong; the message says which run it is.
    """
    folder = folder_of(workdir, planned)
    fresh = not folder.exists() or not any(folder.iterdir())
    logging.info("Study: variant %s, %s, in %s.", planned.variant, place_text(planned), folder)
    began = clock()
    try:
        train(planned.config, str(folder))
    except InputError as error:
        raise InputError(f"Variant {planned.variant}, {place_text(planned)}, in {folder}: {error}") from error
    seconds = clock() - began
    facts = provenance()
    # The time of a run that was interrupted is not known: the time of its first part was not stored.
    write_whole(folder / RECORD, json.dumps({"seconds": seconds if fresh else None, **facts}, indent=2) + "\n")
    memory.release(keep=True)  # a finished run's parameters sit in reference cycles


def folder_of(workdir: pathlib.Path, planned: Run) -> pathlib.Path:
    """The run's own workdir."""
    return study_plan.folder_of(workdir, planned.variant, planned.seed, planned.fold)


def place_text(planned: Run) -> str:
    """Its seed and, where there are folds, its fold."""
    return f"seed {planned.seed}" + ("" if planned.fold is None else f", fold {planned.fold}")


def collect(study: Study, workdir: pathlib.Path) -> list[Result]:
    """The finished runs, variant by variant.

    Raises:
      InputError: a file of a run cannot be read.
    """
    found = []
    for planned in sorted(study.runs, key=lambda planned: study.variants.index(planned.variant)):
        folder = folder_of(workdir, planned)
        if (folder / "scores.json").exists():
            scores = read_json(folder / "scores.json", AGAIN)
            if has_changed(folder / "scores.json"):
                raise InputError(f"{folder / 'scores.json'} is not what was written (its sha256 differs). {AGAIN}")
            # Where the study was killed before it wrote the record, the scores themselves say where they were made.
            record = read_json(folder / RECORD, AGAIN) if (folder / RECORD).exists() else scores.get("provenance")
            record = dict(record) if isinstance(record, dict) else {}
            found.append(
                Result(planned.variant, planned.seed, planned.fold, scores, record.pop("seconds", None), record)
            )
    return found


def _compare_teachers(
    planned: Run, workdir: pathlib.Path, known: dict[str, tuple[pathlib.Path, list[str]]], accept: bool
) -> list[str]:
    """Compares the teachers of a variant's runs, where these are those whose files are there.

    Args:
      planned: a run that has begun, or is to begin now.
      workdir: the study's folder.
      known: for each variant the folder of its first run, and that run's teachers; added to.
      accept: return differences, in place of refusing.

    Returns:
      The difference from the variant's first run, in words; none where there is none.

    Raises:
      InputError: the run has other teachers, which is not accepted, or none.
    """
    sections = planned.config.get("teachers", {})
    if not any(section.get("if_there") for section in sections.values()):
        return []
    folder = folder_of(workdir, planned)
    try:
        has_begun = (folder / "config.json").exists()
        config = stored_config(folder) if has_begun else available_teachers.choose(planned.config, folder)
    except InputError as error:
        raise InputError(f"Variant {planned.variant}, {place_text(planned)}, in {folder}: {error}") from error
    names = sorted(config.get("teachers", {}))
    first, before = known.setdefault(planned.variant, (folder, names))
    if names == before:
        return []
    files = [f"{name} ({sections[name].if_there})" for name in sorted({*names} ^ {*before}) if name in sections]
    change = f"{folder} has other teachers than {first}: {', '.join(files)} came or went between the two"
    if not accept:
        raise InputError(
            f"{change}, so that their scores do not compare. Put the files back as they were, remove the folders of "
            f"the runs with the wrong teachers, or add {began.ACCEPT}; the table then says so."
        )
    return [change]


def _compare_data(folder: pathlib.Path, known: dict[str, tuple[str, Record]], accept: bool) -> list[str]:
    """The differences accepted in a finished run, and those between its data and the data of earlier runs, in words.

    Args:
      folder: the run's.
      known: for each configuration of data, as JSON, the folder and the record of the first run with it; added to.
      accept: return differences, in place of refusing.

    Raises:
      InputError: the data differ, which is not accepted.
    """
    record = read_record(folder)
    if record is None:
        return []
    name, was = known.setdefault(json.dumps(record["config"].get("data"), sort_keys=True), (str(folder), record))
    changes = began.data_differences(was, record)
    if began.EXTRA in was["sets"] and began.EXTRA in record["sets"]:  # a run without phases for them does not read them
        changes = [*changes, *began.extra_differences(was, record)]
    if changes and not accept:
        raise InputError(
            f"{folder} began with other data than {name}, so that their scores do not compare: {'; '.join(changes)}. "
            f"Remove the folders of the runs with the wrong data, or add {began.ACCEPT}; the table then says so."
        )
    accepted = [f"{folder.name} in {folder.parent}: {change}" for change in began.accepted(folder)]
    return [*accepted, *(f"{folder} beside {name}: {change}" for change in changes)]


def write_results(study: Study, workdir: pathlib.Path, results: Sequence[Result], changes: Sequence[str] = ()) -> str:
    """Writes results.csv and table.md of finished runs, each whole or not at all, and returns the table.

    Args:
      study: the study.
      workdir: its folder.
      results: the finished runs.
      changes: the accepted differences between runs' data, which are listed below the table.

    Raises:
      InputError: a finished run has no number of the study's metric; results.csv is written all the same.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    write_whole(workdir / "results.csv", results_csv(results))
    here = provenance()
    table = study_table(
        [result for result in results if result.variant not in study.support],
        title=study.title,
        metric=study.metric,
        also=study.also,
        per_seed=study.per_seed,
        per_fold=study.per_fold,
        baselines=study.baselines,
        planned=sum(planned.variant not in study.support for planned in study.runs),
        synthetic=any(_source(planned.config) == "painter" for planned in study.runs),
        command=here["command"],
        date=here["date"],
    )
    if changes:
        noted = "".join(f"\n- {change}" for change in changes)
        table += f"\n**Runs of different data stand in this table; that was accepted:**\n{noted}\n"
    write_whole(workdir / "table.md", table)
    return table


def _source(config: ml_collections.ConfigDict) -> str:
    return config.get("data", {}).get("source", "")


def estimate_seconds(done: Sequence[Result], waiting: Sequence[Run]) -> float | None:
    """Seconds that the waiting runs will take: each its variant's mean so far, else that of all; None without any."""
    known: dict[str, list[float]] = {}
    for result in done:
        if result.seconds is not None:
            known.setdefault(result.variant, []).append(result.seconds)
    if not known:
        return None
    overall = statistics.mean(seconds for group in known.values() for seconds in group)
    return sum(statistics.mean(known.get(planned.variant, [overall])) for planned in waiting)


def _chosen(study: Study, only: Sequence[str]) -> list[Run]:
    return [planned for planned in study.runs if not only or planned.variant in only]


def list_runs(study: Study, workdir: pathlib.Path, only: Sequence[str] = ()) -> str:
    """A Markdown table of the runs and whether each is done, begun, or still to do."""
    check_variants(only, study.variants)
    rows = []
    for planned in _chosen(study, only):
        folder = folder_of(workdir, planned)
        begun = "begun" if folder.exists() and any(folder.iterdir()) else "to do"
        state = "done" if (folder / "scores.json").exists() else begun
        rows.append([planned.variant, place_text(planned), state])
    return Table(["variant", "run", "state"], rows).markdown()
