"""The share of a TPU's matrix peak that a phase reaches, by the program that the TPU's own compiler made."""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emokd.errors import InputError
from emokd.reporting.table import Table

TARGET = "v5e:"
"""What the names of the targets begin with whose programs are read: those of the first machine of the forecast."""

Key = tuple[str, ...]
"""Recipe, data set, student's architecture and phase."""


def read_programs(paths: Sequence[str]) -> dict[Key, Mapping[str, Any]]:
    """The phases in results of `emokd.benchmark --target=v5e:... --json=FILE`, as one device computes them.

    Raises:
      InputError: a file is missing or no such result, or is of another kind of TPU.
    """
    found = {}
    for path in paths:
        try:
            results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            name = results["target"]["name"]
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise InputError(
                f"{path}: {error!r}. Make it with python -m emokd.benchmark --target=v5e:2x2 --json={path}."
            ) from error
        if not name.startswith(TARGET):
            raise InputError(f"{path} is compiled for {name}, but the forecast is of v5e; give --target=v5e:2x2.")
        for phase in results["phases"]:
            alone = phase.get("one_device", phase)
            if alone["fits"]:
                found[key_of(results["config"], results["data"], phase["name"])] = alone
    return found


def key_of(config: Mapping[str, Any], data: str, phase: str) -> Key:
    """Which phase of which configurations a program is of."""
    return config["recipe"], data, config.get("student", {}).get("backbone", ""), phase


def share_of_peak(program: Mapping[str, Any], networks: Collection[str] | None) -> float:
    """The share of the peak while the whole step computes, or the networks of these names."""
    if networks is None:
        return program["shares"]["compute"]
    parts, shares = program["parts"], program["part_shares_of_peak"]
    cycles = {name: parts[name] for name in networks if name in parts}
    return sum(shares[name] * count for name, count in cycles.items()) / sum(cycles.values())


def comparison(rows: Sequence[tuple[str, float, float]], assumed: float) -> Table:
    """How far the assumed share was off.

    Args:
      rows: phase, its networks' milliseconds at the assumed share, the share that the compiler estimates.
      assumed: the share that the forecast takes without programs.
    """
    return Table(
        ["phase", f"networks ms at {assumed:.0%}", "share by the compiler", "networks ms", "of the old time"],
        [
            [phase, f"{old:.3g}", f"{share:.1%}", f"{old * assumed / share:.3g}", f"{assumed / share:.2f}"]
            for phase, old, share in rows
        ],
        title="What the compiler's programs change, on a TPU v5e",
    )
