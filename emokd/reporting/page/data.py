"""The data that a run began with, as numbers and fingerprints."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from emokd.reporting.page.blocks import Block, Grid, Text
from emokd.reporting.run_files import Missing, RunFiles, mapping
from emokd.reporting.table import Table

DIGITS = 16


def fingerprint(part: Mapping[str, Any]) -> str:
    """The first hexadecimal digits of the SHA-256 of a set's record: names, contents and targets, in order."""
    text = json.dumps([part.get(name) for name in ("keys", "checksums", "columns")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def blocks(run: RunFiles) -> list[Block]:
    """Sets, classes and files.

    Raises:
      Missing: the run does not say what it began with.
    """
    sets = mapping(run.began.get("sets"))
    if not sets:
        raise Missing(f"{run.problems.get('began_with.json', 'began_with.json names no sets.')} No fingerprints.")
    rows = [
        [name, str(len(part["keys"])), ", ".join(mapping(part.get("columns"))) or "none", fingerprint(part)]
        for name, part in sets.items()
    ]
    note = "Equal fingerprints: the same names, bytes and targets in the same order."
    table = Table(
        ["set", "examples", "targets", "fingerprint"], rows, title=str(run.scores.get("data", "")), notes=[note]
    )
    found: list[Block] = [Grid(table, label="The data's sets", folded=False)]
    for target, names in mapping(run.began.get("classes")).items():
        found.append(Text(f"Classes of {target}, in order: {', '.join(map(str, names))}.", "quiet"))
    files = [[key, str(digest)] for key, digest in mapping(run.began.get("files")).items()]
    if files:
        found.append(Grid(Table(["setting", "SHA-256 of the file or folder that it names"], files), label="Files read"))
    return found
