"""The configuration: what differs from the recipe's defaults, and all of it."""

import json
from collections.abc import Mapping
from typing import Any

from emokd.reporting.page.blocks import Block, Grid, Text
from emokd.reporting.run_files import Missing, RunFiles
from emokd.reporting.table import Table

_ABSENT = object()


def blocks(run: RunFiles, defaults: Mapping[str, Any] | None) -> list[Block]:
    """The difference from `defaults` (a configuration; None where they are not known), and every setting, folded.

    Raises:
      Missing: there is no configuration.
    """
    if "config.json" in run.problems:
        raise Missing(run.problems["config.json"])
    own = dict(_leaves(run.config))
    found: list[Block] = []
    if defaults is None:
        found.append(Text("The recipe's defaults are not known here, so all settings are listed.", "quiet"))
    else:
        given = dict(_leaves(defaults))
        rows = [
            [name, _text(given.get(name, _ABSENT)), _text(own.get(name, _ABSENT))]
            for name in sorted(own.keys() | given.keys())
            if _plain(own.get(name, _ABSENT)) != _plain(given.get(name, _ABSENT))
        ]
        table = Table(["key", "default of the recipe", "this run"], rows)
        if rows:
            summary = f"{len(rows)} settings that differ from the recipe's defaults"
            found.append(Grid(table, label=summary, summary=summary))
        else:
            found.append(Text("Every setting is at the recipe's default."))
    every = Table(["key", "value"], [[name, _text(value)] for name, value in own.items()])
    found.append(Grid(every, label="All settings", folded=True, summary=f"All {len(own)} settings"))
    return found


def _plain(value: Any) -> Any:
    """As JSON has it: tuples are lists there."""
    return value if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _text(value: Any) -> str:
    return "-" if value is _ABSENT else json.dumps(value, ensure_ascii=False, default=str)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
