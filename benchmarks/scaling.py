"""What a pod would do: a forecast from a step measured on one device and the collectives of the program on several.

    python -m emokd.benchmark --config=FILE --data=fake --json=one.json --config.devices=1
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m emokd.benchmark --config=FILE --data=fake \
      --json=eight.json
    python benchmarks/scaling.py --one=one.json,... --several=eight.json,... [--page=FILE]

Nothing is measured here. The model, in words, is `MODEL`; the machines are `MACHINES`, with their makers' figures.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from emokd.command import run
from emokd.errors import InputError
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table
from emokd.workdir import write_atomically

LATENCY = 20e-6
"""Seconds before a collective's first byte."""

MODEL = (
    "Each device keeps the batch of the measured run, so the global batch grows with the devices.",
    "A device computes at the share of its matrix peak that one CPU core reached in the measured step, or at 5% of it.",
    f"A collective takes {1e6 * LATENCY:.0f} µs and its bytes at the link's speed, twice for an all-reduce (a ring); "
    "none of it is hidden behind computing.",
    "Gathered rows grow with the devices, gradients do not; how many collectives there are does not change.",
    "What every device computes of the gathered rows (transport, centroids) is not in the multiply-accumulates: it is "
    "counted at its measured share of the step, times the square of the growth of the global batch.",
    "Pictures are there when they are wanted; the last column says how many a host has to decode for that.",
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices of one kind, by their maker's figures.

    Attributes:
      name: of the whole.
      devices: how many.
      per_host: how many a host feeds.
      flops: bfloat16 matrix peak of one.
      link: bytes a second out of one device, on the slowest link of a ring through all.
    """

    name: str
    devices: int
    per_host: int
    flops: float
    link: float


MACHINES = (
    # 197 TFLOP/s; four links of 400 Gbit/s, a ring uses one in each direction. Hosts of 4 chips.
    Machine("TPU v5e-256", 256, 4, 197e12, 2 * 50e9),
    # 989 TFLOP/s dense; 400 Gbit/s of network for each GPU. Hosts of 8.
    Machine("64 H100 SXM", 64, 8, 989e12, 50e9),
)
SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Forecast:
    """One phase on one machine.

    Attributes:
      compute: seconds of a step that one device computes.
      exchange: seconds of its collectives.
      rate: examples a second of all devices.
      efficiency: of the time, what is computing that divides over devices.
    """

    compute: float
    exchange: float
    rate: float
    efficiency: float


def forecast(
    one: Mapping[str, Any], several: Mapping[str, Any], batch: int, rows: int, machine: Machine, share: float
) -> Forecast:
    """A phase's step on a machine, by `MODEL`.

    Args:
      one: the phase as measured on one device.
      several: the same phase, compiled for several devices.
      batch: examples on one device.
      rows: examples on all devices of `several`.
      machine: where it would run.
      share: of the matrix peak that a device reaches.
    """
    compute = 2 * one["macs"] / (machine.flops * share)
    growth = batch * machine.devices / rows
    exchange = 0.0
    gathers = False
    for kind, found in several["program"]["collectives"].items():
        passes, grows = {"all-reduce": (2, 1.0)}.get(kind, (1, growth))
        gathers = gathers or kind == "all-gather"
        exchange += found["count"] * LATENCY + passes * found["bytes"] * grows / machine.link
    relations = max(rest(one), 0.0) * compute * machine.devices**2 if gathers else 0.0
    seconds = compute + relations + exchange
    return Forecast(compute + relations, exchange, batch * machine.devices / seconds, compute / seconds)


def rest(phase: Mapping[str, Any]) -> float:
    """The share of a measured step that none of its parts accounts for; it can be negative."""
    return next((p["share"] for p in phase["split"] if p["part"] == "rest"), None) or 0.0


def remark(one: Mapping[str, Any], several: Mapping[str, Any]) -> str:
    """Names the phases whose work on gathered rows is missing in the forecast; empty where there is none."""
    missing = [
        ours["name"]
        for ours, theirs in zip(one["phases"], several["phases"], strict=True)
        if "all-gather" in theirs["program"]["collectives"] and rest(ours) <= 0
    ]
    if not missing:
        return ""
    rows = one["batch_size"] // one["devices"]["count"] * max(machine.devices for machine in MACHINES)
    return (
        f"Not counted in {', '.join(missing)}: what every device computes of the gathered rows, as its measured share "
        f"of the step is not positive. Of {rows:,} rows one similarity matrix takes {4 * rows**2 / 2**30:.1f} GiB."
    )


def table(one: Mapping[str, Any], several: Mapping[str, Any]) -> Table:
    """All phases of a configuration on all machines, at the measured share of the peak and at `SHARE`."""
    batch = one["batch_size"] // one["devices"]["count"]
    rows = []
    for ours, theirs in zip(one["phases"], several["phases"], strict=True):
        measured = ours["share_of_matmul_peak"]
        exchanged = sum(found["bytes"] for found in theirs["program"]["collectives"].values())
        for machine in MACHINES:
            for share in (measured, SHARE):
                found = forecast(ours, theirs, batch, several["batch_size"], machine, share)
                rows.append(
                    [
                        ours["name"],
                        machine.name,
                        f"{share:.1%}",
                        f"{exchanged / 2**20:.2f}",
                        f"{1e3 * found.compute:.3g}",
                        f"{1e3 * found.exchange:.3g}",
                        f"{found.rate:.3g}",
                        f"{found.efficiency:.0%}",
                        f"{found.rate / (machine.devices / machine.per_host):.3g}",
                    ]
                )
    header = [
        "phase",
        "machine",
        "of peak",
        "MiB exchanged",
        "compute ms",
        "exchange ms",
        "examples/s",
        "efficiency",
        "examples/s/host",
    ]
    title = f"{one['data']['name']}, {batch} examples on each device; compiled for {several['devices']['count']}"
    return Table(header, rows, title=title)


def read(paths: list[str]) -> list[dict[str, Any]]:
    """Results of `emokd.benchmark`.

    Raises:
      InputError: a file is missing or no such result.
    """
    found = []
    for path in paths:
        try:
            found.append(json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: {error}. Make it with python -m emokd.benchmark --json={path}.") from error
    return found


def page(one: list[str], several: list[str]) -> str:
    """The forecasts.

    Raises:
      InputError: there are not as many files of the one kind as of the other, or two belong to different jobs.
    """
    pairs = list(zip(read(one), read(several), strict=False))
    if len(one) != len(several):
        raise InputError(f"--one has {len(one)} files and --several {len(several)}: give them in pairs.")
    for (a, b), path in zip(pairs, several, strict=True):
        if [p["name"] for p in a["phases"]] != [p["name"] for p in b["phases"]]:
            raise InputError(f"{path} is of another configuration than its partner in --one: the phases differ.")
    facts = provenance()
    lines = [
        f"- Command: `{facts.pop('command')}`",
        *(f"- {name.capitalize()}: {text}" for name, text in facts.items()),
    ]
    model = ["A forecast, not a measurement. The model:", "\n".join(f"- {sentence}" for sentence in MODEL)]
    tables = [text for a, b in pairs for text in (table(a, b).markdown(), remark(a, b)) if text]
    return "\n\n".join(["# What a pod would do", "\n".join(lines), *model, *tables]) + "\n"


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    text = page(flags.FLAGS.one, flags.FLAGS.several)
    print(text, end="")
    if flags.FLAGS.page:
        write_atomically(pathlib.Path(flags.FLAGS.page), text)


if __name__ == "__main__":
    flags.DEFINE_list("one", None, "Results of emokd.benchmark on one device.", required=True)
    flags.DEFINE_list("several", None, "Results of the same configurations on several devices.", required=True)
    flags.DEFINE_string("page", None, "Write the page to this file too.")
    run(main)
