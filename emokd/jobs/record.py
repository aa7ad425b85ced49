"""The record of what a run began with, `WORKDIR/began_with.json`: what it holds, and how it is read and written."""

import json
import pathlib
from typing import Any

from emokd.errors import InputError
from emokd.files import write_whole
from emokd.jobs.workdir import RECORD, read_json

Record = dict[str, Any]
"""As JSON: `config`, `sets` ({name: `keys`, `checksums`, `columns`}), `classes`, `files` ({key: hash}),
`trained` ({key: configuration}), `start_from`, `accepted` and `versions`; see `began.describe`."""

STARTED = ("student", "scores")
"""What is compared of the run that this one starts from."""


def read(workdir: pathlib.Path) -> Record | None:
    """The record of the run in `workdir`; None where there is none.

    Raises:
      InputError: it is damaged.
    """
    path = workdir / RECORD
    if not path.exists():
        return None
    remedy = "Restore it, or remove it: then nobody knows what the run began with, and nothing is compared."
    record = read_json(path, remedy)
    if not _is_whole(record):
        raise InputError(f"{path} does not say what the run began with. {remedy}")
    return record


def _is_whole(record: Record) -> bool:
    """Whether a record has what is compared, each part of its kind; contents came with a later emokd."""

    def is_set(part: object) -> bool:
        return (
            isinstance(part, dict)
            and _are_texts(part.get("keys"))
            and isinstance(part.get("columns"), dict)
            and _are_texts([*part["columns"].values(), part.get("checksums", "")])
        )

    sections = [record.get(name) for name in ("config", "sets", "classes", "files", "trained")]
    if not all(isinstance(section, dict) for section in sections):
        return False
    accepted, start = record.get("accepted"), record.get("start_from")
    return (
        all(map(is_set, record["sets"].values()))
        and all(map(_are_texts, record["classes"].values()))
        and _are_texts(list(record["files"].values()))
        and all(isinstance(values, dict) for values in record["trained"].values())
        and isinstance(accepted, list)
        and all(isinstance(entry, dict) and _are_texts(entry.get("changes")) for entry in accepted)
        and (not start or isinstance(start, dict) and _are_texts([start.get(n) for n in ("folder", *STARTED)]))
    )


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def write(workdir: pathlib.Path, record: Record) -> None:
    """Writes the record, whole or not at all."""
    write_whole(workdir / RECORD, json.dumps(record, indent=None, sort_keys=True) + "\n")
