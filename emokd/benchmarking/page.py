"""A benchmark's results as tables for the terminal, as a Markdown page, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emokd.reporting.table import Table, byte_text, count_text

FAKE = "Fake data: one random batch, made on the device. The steps are real, the waiting for data is not measured."


def tables(results: Mapping[str, Any]) -> str:
    """All tables, one below the other."""
    return "\n\n".join(table.markdown() for table in _tables(results))


def page(results: Mapping[str, Any]) -> str:
    """A Markdown page: machine and versions, the timing rule, and the tables."""
    facts = results["provenance"]
    devices, peak = results["devices"], results["peak"]
    lines = [
        f"Command: `{facts['command']}`",
        *(f"{name.capitalize()}: {facts[name]}" for name in ("commit", "date", "machine", "versions")),
        f"Devices: {devices['count']} x {devices['kind']}",
        f"Data: {results['data']['name']}, {results['data']['kind']}; batch of {results['batch_size']}",
        f"Rule: {_rule(results['rule'])}",
        f"Measured peak of one device: {peak['matmul_flops'] / 1e9:.4g} GFLOP/s ({peak['dtype']} matrix product of "
        f"side {peak['side']}, default precision), {peak['copy_bytes'] / 1e9:.4g} GB/s (copy of "
        f"{peak['size_bytes'] / 2**20:.0f} MiB, read and written)",
    ]
    blocks = [f"# Benchmark, {facts['date'].split()[0]}", "\n".join(f"- {line}" for line in lines)]
    if results["data"]["kind"] == "fake":
        blocks.append(FAKE)
    return "\n\n".join([*blocks, tables(results)]) + "\n"


def to_json(results: Mapping[str, Any]) -> str:
    """The results as JSON, indented."""
    return json.dumps(results, indent=2, allow_nan=False) + "\n"


def _rule(rule: Mapping[str, Any]) -> str:
    text = rule["text"]
    if rule["read_ahead"]:
        text += (
            f"; of whole steps {rule['read_ahead']} more are not timed, whose batches were read while the step compiled"
        )
    return text


def _tables(results: Mapping[str, Any]) -> list[Table]:
    phases = results["phases"]
    not_finite = [phase["name"] for phase in phases if not phase["loss_is_finite"]]
    notes = (
        [f"The last loss was not finite in {', '.join(not_finite)}: a solver may iterate longer or shorter there."]
        if not_finite
        else []
    )
    found = [
        Table(
            ["phase", "compile s", "step ms", "quartiles ms", "examples/s/device", "waiting", "of matmul peak"]
            + ["of copy peak", "compilations"],
            [_speed_row(phase) for phase in phases],
            title="Steps",
            notes=notes,
        ),
        Table(
            ["phase", "MACs/step", "FLOPs/device", "bytes accessed", "arguments", "outputs", "aliased", "temporary"]
            + ["peak"],
            [_program_row(phase) for phase in phases],
            title="Programs",
        ),
    ]
    rows = _collective_rows(phases)
    if rows:
        found.append(Table(["phase", "collective", "count", "bytes/device"], rows, title="Collectives"))
    else:
        found[-1] = Table(found[-1].header, found[-1].rows, found[-1].title, ["No program has a collective."])
    found.append(
        Table(
            ["phase", "part", "what", "ms", "of the step", "MACs"],
            [_part_row(phase["name"], part) for phase in phases for part in phase["split"]],
            title="Parts of the step: how much less it takes without each",
            notes=[
                f"Times need not add up; MACs do. All parts together: {', '.join(map(_together, phases))} of the step."
            ],
        )
    )
    if results["networks"]:
        rows = [
            [name, cost["backbone"], count_text(cost["parameters"]), count_text(cost["macs"])]
            for name, cost in results["networks"].items()
        ]
        found.append(Table(["network", "backbone", "parameters", "MACs/example"], rows, title="Networks"))
    return found


def _speed_row(phase: Mapping[str, Any]) -> Sequence[str]:
    return [
        phase["name"],
        f"{phase['compile_seconds']:.1f}",
        _milliseconds(phase["step_seconds"]),
        " to ".join(map(_milliseconds, phase["step_quartiles"])),
        f"{phase['examples_per_second_per_device']:.4g}",
        _percent(phase["share_waiting"]),
        _percent(phase["share_of_matmul_peak"]),
        _percent(phase["share_of_copy_peak"]),
        str(phase["compilations"]),
    ]


def _program_row(phase: Mapping[str, Any]) -> Sequence[str]:
    program = phase["program"]
    sizes = ("bytes_accessed", "argument_bytes", "output_bytes", "aliased_bytes", "temporary_bytes", "peak_bytes")
    return [
        phase["name"],
        count_text(phase["macs"]),
        count_text(program["flops"]),
        *(byte_text(program[size]) for size in sizes),
    ]


def _collective_rows(phases: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [phase["name"], name, str(entry["count"]), byte_text(entry["bytes"])]
        for phase in phases
        for name, entry in sorted(phase["program"]["collectives"].items())
    ]


def _part_row(phase: str, part: Mapping[str, Any]) -> list[str]:
    return [
        phase,
        part["part"],
        part["what"],
        _milliseconds(part["seconds"]),
        _percent(part["share"]),
        count_text(part["macs"]),
    ]


def _together(phase: Mapping[str, Any]) -> str:
    return f"{phase['name']} {_percent(sum(part['share'] or 0 for part in phase['split']))}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
