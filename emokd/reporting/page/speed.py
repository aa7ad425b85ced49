"""How fast each phase was, and what it took of memory."""

import statistics

from emokd.reporting.page.blocks import Block, Grid, Text
from emokd.reporting.progress import duration_text
from emokd.reporting.run_files import Missing, RunFiles
from emokd.reporting.table import Table, count_text

COMPILED = ("compile_seconds", "flops_per_step", "device_bytes")
MEASURED = ("examples_per_second_per_device", "data_wait_share", "host_peak_bytes")

HEADER = (
    "phase",
    "examples/s/device (median)",
    "data wait",
    "compile seconds",
    "FLOPs per step (XLA)",
    "device memory, MiB",
    "host peak memory, MiB",
)

NOTE = (
    "Rates leave out compilation, the first step of a phase, evaluations and saving; compile seconds are given "
    "for each time that the phase was compiled. Device memory is what XLA plans for the compiled step."
)


def blocks(run: RunFiles) -> list[Block]:
    """A row for each phase.

    Raises:
      Missing: nothing is recorded.
    """
    phases = list(dict.fromkeys(record["phase"] for record in run.records))
    if not phases:
        raise Missing("There is no metrics.jsonl, or no line in it: no speed.")
    rows = []
    for phase in phases:

        def values(name: str, phase: str = phase) -> list[float]:
            return [record[name] for record in run.records if record["phase"] == phase and name in record]

        rate, wait = values(MEASURED[0]), values(MEASURED[1])
        compiled, flops, device, host = (values(name) for name in (*COMPILED, MEASURED[2]))
        rows.append(
            [
                phase,
                f"{statistics.median(rate):.4g}" if rate else "-",
                f"{statistics.mean(wait):.1%}" if wait else "-",
                " + ".join(f"{seconds:.1f}" for seconds in compiled) or "-",
                count_text(flops[-1]) if flops else "-",
                f"{device[-1] / 2**20:.0f}" if device else "-",
                f"{max(host) / 2**20:.0f}" if host else "-",
            ]
        )
    found: list[Block] = [Grid(Table(HEADER, rows, notes=[NOTE]), label="Speed and memory by phase", folded=False)]
    times = [record["time"] for record in run.records if isinstance(record.get("time"), int | float)]
    if len(times) > 1:
        text = f"From the first to the last line of the log: {duration_text(max(times) - min(times))}, stops included."
        found.append(Text(text, "quiet"))
    return found
