"""What a run began with, beyond its configuration: data, teachers' files, and the run it started from.

`WORKDIR/began_with.json` is written when a run begins. It is compared whenever the run continues, is found finished, is
evaluated or reported, or another run starts from it. A difference is named and refused, unless the user accepts it;
then the record and the scores say so.

Pictures are compared by the size and checksum of their bytes (`Examples.checksums`), so those of a folder are read,
unless the search for duplicates has read them already. Arrays are compared by hash.
"""

import contextlib
import datetime
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from emokd.configuration import config as configuration
from emokd.data.examples import Examples
from emokd.errors import InputError, excerpt
from emokd.jobs import predecessor
from emokd.jobs.models import of_fold
from emokd.jobs.record import STARTED, Record, read, write
from emokd.jobs.workdir import RECORD
from emokd.reporting.provenance import command, versions
from emokd.training.loop import UNLABELLED
from emokd.weights import model_folder
from emokd.weights.importing import file_hash, split_key
from emokd.weights.places import find_file

DIGITS = 8
"""Hexadecimal digits of the digest of one example's bytes or target."""

EXTRA = "extra"
"""The name of the set of unlabelled pictures, which is no split."""

ACCEPT = "--accept_changed_data"

ACCEPT_HELP = "Go on although the data or files are no longer those that the run began with; its scores will say so."

_READING = ("teachers", "student", "modalities")
"""Sections of a configuration whose texts may be paths of files that the run reads."""

_NO_FILES = ("backbone", "if_there", "train")
"""Keys in these sections whose texts are none."""


def describe(config: ml_collections.ConfigDict, splits: Mapping[str, Examples], extra: Examples | None) -> Record:
    """The record of a run that would begin now.

    Args:
      config: its resolved configuration.
      splits: its examples by split.
      extra: its unlabelled pictures, or None.

    Raises:
      InputError: the configuration of a teacher to train cannot be loaded.
    """
    sets = splits if extra is None else {**splits, EXTRA: extra}
    start = config.get("start_from", "")
    trained = {
        f"config.teachers.{name}.train": configuration.load(section.train)
        for name, section in config.get("teachers", {}).items()
        if section.train and not section.checkpoint
    }
    return {
        "config": json.loads(configuration.to_json(config)),
        "sets": {name: _describe_set(examples, name not in (EXTRA, UNLABELLED)) for name, examples in sets.items()},
        "classes": {column: list(names) for column, names in splits["train"].classes.items()},
        "files": {key: digest for key, path in files_of(config).items() if (digest := _hash(path))},
        "trained": {key: json.loads(configuration.to_json(value)) for key, value in trained.items()},
        "start_from": _describe_start(pathlib.Path(start)) if start else None,
        "accepted": [],
        "versions": versions(),
    }


def _describe_set(examples: Examples, labelled: bool) -> dict[str, Any]:
    columns = {name: _digests(map(_value_bytes, examples.columns[name])) for name in sorted(examples.columns)}
    return {
        "keys": list(examples.keys),
        "checksums": _digests(map(str.encode, examples.checksums())),
        "columns": columns if labelled else {},
    }


def _digests(items: Iterable[bytes]) -> str:
    return "".join(hashlib.blake2b(item, digest_size=DIGITS // 2).hexdigest() for item in items)


def _value_bytes(value: np.ndarray) -> bytes:
    """The bytes of a target, equal for equal targets: every NaN has the same bytes, and so have 0.0 and -0.0."""
    value = np.asarray(value)
    if value.dtype.kind == "f":
        value = np.where(np.isnan(value), np.array(np.nan, value.dtype), value) + np.zeros((), value.dtype)
    return value.tobytes()


def _hash(path: pathlib.Path) -> str:
    """The sha256 of a file, or of a model folder's weights and specification; empty for anything else."""
    if not path.is_dir():
        return file_hash(path) if path.is_file() else ""
    weights = path / model_folder.WEIGHTS
    if not weights.is_file():
        return ""
    # The specification (class names, normalisation) counts as the weights do; the provenance does not.
    said = hashlib.sha256(file_hash(weights).encode())
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # whoever loads the model reports it
        spec = json.loads((path / model_folder.DESCRIPTION).read_text(encoding="utf-8"))["spec"]
        said.update(json.dumps(spec, sort_keys=True).encode())
    return said.hexdigest()


def _describe_start(folder: pathlib.Path) -> dict[str, Any]:
    description = {"folder": str(folder), "student": _hash(folder / "student"), "scores": _hash(folder / "scores.json")}
    with contextlib.suppress(InputError):  # whoever starts from that run reports it
        return {**description, "phases": sorted(predecessor.phases_done(folder))}
    return description


def files_of(config: ml_collections.ConfigDict) -> dict[str, pathlib.Path]:
    """The existing files and folders that the settings of student, teachers and modalities name, by key."""
    files = {}
    for key, value in configuration.leaves(config):
        last = key.rsplit(".", 1)[-1]
        if key.split(".")[0] in _READING and isinstance(value, str) and value and last not in _NO_FILES:
            # A file that is gone is not a changed one: whoever needs it reports it.
            with contextlib.suppress(InputError):
                path, _ = split_key(of_fold(value, config))
                files[f"config.{key}"] = find_file(path, f"config.{key}")
    return files


def compare(workdir: pathlib.Path, now: Record, accept: bool) -> list[str]:
    """Compares the data and files of a run with those that it began with.

    Args:
      workdir: the run's folder.
      now: the record that it would begin with now; what only one of the two records holds is not compared.
      accept: log differences as a warning, in place of refusing.

    Returns:
      The accepted differences, in words.

    Raises:
      InputError: something differs and is not accepted, or the record is damaged.
    """
    was = read(workdir)
    if was is None:
        logging.warning("%s does not say what its run began with (no %s), so nothing is compared.", workdir, RECORD)
        return []
    if any("checksums" not in part for part in was["sets"].values()):
        logging.warning("%s: %s is of an older emokd: the contents of examples are not compared.", workdir, RECORD)
    changes = differences(was, now)
    if changes and not accept:
        raise InputError(
            f"{workdir}: what its run began with has changed: {'; '.join(changes)}. Restore it, use another --workdir, "
            f"or add {ACCEPT} to go on all the same; the scores then say so."
        )
    if changes:
        logging.warning("%s: accepted although its run began with something else: %s.", workdir, "; ".join(changes))
    return changes


def begin(workdir: pathlib.Path, now: Record, begun: bool, changes: Sequence[str] = ()) -> None:
    """Writes the record of a run that begins, or adds accepted differences to that of one that continues.

    Args:
      workdir: the run's folder.
      now: the record that it begins, or continues, with.
      begun: whether the run had begun before.
      changes: the accepted differences, from `compare`.
    """
    was = read(workdir)
    if was is None:
        write(workdir, {**now, "late": begun, "accepted": [_accepted(changes)] if changes else []})
    elif changes:
        write(workdir, {**now, "accepted": [*was["accepted"], _accepted(changes)]})


def note(workdir: pathlib.Path, changes: Sequence[str]) -> None:
    """Adds accepted differences to the record of a finished run, and leaves the rest of it unchanged."""
    was = read(workdir)
    if was is not None and changes and list(changes) not in [entry["changes"] for entry in was["accepted"]]:
        write(workdir, {**was, "accepted": [*was["accepted"], _accepted(changes)]})


def _accepted(changes: Sequence[str]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"date": now, "command": command(), "changes": list(changes)}


def accepted(workdir: pathlib.Path) -> list[str]:
    """Every difference that has been accepted in the run of `workdir`, in words."""
    record = read(workdir) or {"accepted": []}
    return list(dict.fromkeys(change for entry in record["accepted"] for change in entry["changes"]))


def differences(was: Record, now: Record) -> list[str]:
    """The differences between two records, in words, each with its first few names; of splits, those that both have."""
    changes = data_differences(was, now)
    columns = [{name for part in record["sets"].values() for name in part["columns"]} for record in (was, now)]
    if columns[0] != columns[1]:
        parts = [
            f"{name} is {verb}"
            for names, verb in ((columns[1] - columns[0], "new"), (columns[0] - columns[1], "gone"))
            for name in sorted(names)
        ]
        changes.append(f"the targets: {', '.join(parts)}")
    changes += extra_differences(was, now)
    for key, digest in now["files"].items():
        before = was["files"].get(key)
        if before and before != digest:
            changes.append(f"{key} is another file (sha256 {before[:12]} then, {digest[:12]} now)")
    for key, values in now["trained"].items():
        if key in was["trained"]:
            before = ml_collections.ConfigDict(was["trained"][key])
            keys = configuration.differing_keys(ml_collections.ConfigDict(values), before)
            if keys:
                changes.append(f"{key} is another configuration: {excerpt(keys)}")
    start, started = was.get("start_from"), now.get("start_from")
    if start and started and any(started[part] and start[part] != started[part] for part in STARTED):
        changes.append(f"config.start_from: {started['folder']} holds another run")
    return changes


def data_differences(was: Record, now: Record) -> list[str]:
    """The differences between two records in their splits, targets and classes, in words."""
    names = [name for name in now["sets"] if name in was["sets"] and name != EXTRA]
    changes = _set_differences(_only(was, *names), _only(now, *names), "examples")
    for column, classes in now["classes"].items():
        before = was["classes"].get(column)
        if before is not None and before != classes:
            changes.append(f"the classes of {column} ({excerpt(before, 12)} then, {excerpt(classes, 12)} now)")
    return changes


def extra_differences(was: Record, now: Record) -> list[str]:
    """The differences between two records in their unlabelled examples that are in no split, in words."""
    return _set_differences(_only(was, EXTRA), _only(now, EXTRA), "unlabelled examples in no split")


def _only(record: Record, *names: str) -> dict[str, dict[str, Any]]:
    return {name: record["sets"][name] for name in names if name in record["sets"]}


def _set_differences(was: Mapping[str, dict], now: Mapping[str, dict], what: str) -> list[str]:
    before, after = _places(was), _places(now)
    gone = [key for key in before if key not in after]
    added = [key for key in after if key not in before]
    resplit = [key for key in after if key in before and before[key] != after[key]]
    changes = []
    if gone or added:
        parts = [
            f"{len(names)} {verb} ({excerpt(names, 3)})" for names, verb in ((added, "new"), (gone, "gone")) if names
        ]
        changes.append(f"{len(before)} {what} then, {len(after)} now: {', '.join(parts)}")
    if resplit:
        shown = [f"{key} from {'/'.join(before[key])} to {'/'.join(after[key])}" for key in resplit]
        changes.append(f"{len(resplit)} {what} are in another split ({excerpt(shown, 3)})")
    for column in sorted({column for part in now.values() for column in part["columns"]}):
        changed = _changed(was, now, lambda part, column=column: part["columns"].get(column, ""))
        if changed:
            changes.append(f"{column} of {len(changed)} {what} ({excerpt(changed, 3)})")
    changed = _changed(was, now, lambda part: part.get("checksums", ""))
    if changed:
        changes.append(f"the content of {len(changed)} {what} ({excerpt(changed, 3)})")
    return changes


def _places(sets: Mapping[str, dict]) -> dict[str, tuple[str, ...]]:
    """The names of the sets that hold each example, by its key; the test split may also be the validation split."""
    places: dict[str, tuple[str, ...]] = {}
    for name, part in sets.items():
        for key in part["keys"]:
            places[key] = (*places.get(key, ()), name)
    return places


def _changed(was: Mapping[str, dict], now: Mapping[str, dict], digests: Any) -> list[str]:
    """The keys of the examples that have a digest in both records, but not the same one."""

    def by_key(sets: Mapping[str, dict]) -> dict[str, str]:
        digests_by_key: dict[str, str] = {}
        for part in sets.values():
            text = digests(part)
            if len(text) == DIGITS * len(part["keys"]):
                digests_by_key |= {key: text[i * DIGITS : (i + 1) * DIGITS] for i, key in enumerate(part["keys"])}
        return digests_by_key

    before = by_key(was)
    return [key for key, digest in by_key(now).items() if before.get(key, digest) != digest]


def check_start(folder: pathlib.Path, now: Record, accept: bool) -> list[str]:
    """Compares the data of a run with those of the run that it starts from, and of the runs that that one started from.

    A run that learned from other data or splits may have learned from examples that this one is scored on.

    Args:
      folder: the run that is started from.
      now: the record of the run that starts.
      accept: log differences as a warning, in place of refusing.

    Returns:
      The accepted differences, in words.

    Raises:
      InputError: something differs and is not accepted.
    """
    was = read(folder)
    if was is None:
        logging.warning(
            "config.start_from: %s does not say what its run began with (no %s): whether it has learned from what "
            "this run is scored on is not known.",
            *(folder, RECORD),
        )
        return []
    if was["config"].get("data", {}).get("options") != now["config"].get("data", {}).get("options"):
        # With other options a source gives other contents under the same names.
        was = {**was, "sets": {name: {**part, "checksums": ""} for name, part in was["sets"].items()}}
    changes = [f"config.start_from: {folder}: {change}" for change in data_differences(was, now)]
    changes += [f"config.start_from: {folder}: {change}" for change in _learned(was, now)]
    if changes and not accept:
        raise InputError(
            f"{'; '.join(changes)}. Start from a run of the same data and splits, or add {ACCEPT} to go on all the "
            "same; the scores then say so."
        )
    if changes:
        logging.warning("Accepted: %s.", "; ".join(changes))
    for change in [change for entry in was["accepted"] for change in entry["changes"]]:
        # Differences that were accepted for still earlier runs name those runs already.
        changes.append(change if change.startswith("config.start_from: ") else f"config.start_from: {folder}: {change}")
    earlier = was.get("start_from")
    if earlier and pathlib.Path(earlier["folder"]).is_dir():
        changes += check_start(pathlib.Path(earlier["folder"]), now, accept)
    return list(dict.fromkeys(changes))


def _learned(was: Record, now: Record) -> list[str]:
    """How many of the examples that run `now` is scored on run `was` has learned from, in words."""
    sources = [record["config"]["data"] for record in (was, now)]
    same = sources[0].get("extra", {}).get("source") == sources[1]["source"]  # else equal names mean nothing
    names = [name for name in ("train", EXTRA) if name in was["sets"] and (name == "train" or same)]
    learned = {key for name in names for key in was["sets"][name]["keys"]}
    leaks = []
    for name in ("validation", "test"):
        if name in now["sets"]:
            keys = now["sets"][name]["keys"]
            leaked = [key for key in keys if key in learned]
            if leaked:
                leaks.append(
                    f"it has learned from {len(leaked)} of the {len(keys)} {name} examples ({excerpt(leaked, 3)})"
                )
    return leaks
