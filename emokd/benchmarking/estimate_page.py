"""What the TPU's compiler estimates, as tables for the terminal and as a Markdown page to keep."""

from collections.abc import Mapping, Sequence
from typing import Any

from emokd.benchmarking.chips import SOURCE
from emokd.benchmarking.interconnect import MODEL
from emokd.reporting.table import Table, byte_text, count_text

ESTIMATED = (
    "Nothing ran: every time, rate and share here is estimated by the TPU compiler, from the cycles that it schedules "
    "by. It is good for comparing programs and for orders of magnitude, not as a measurement."
)


def tables(results: Mapping[str, Any]) -> str:
    """All tables, one below the other."""
    return "\n\n".join(table.markdown() for table in _tables(results))


def page(results: Mapping[str, Any]) -> str:
    """A Markdown page: where the numbers come from, what they are, and the tables."""
    facts, target = results["provenance"], results["target"]
    lines = [
        f"Command: `{facts['command']}`",
        *(f"{name.capitalize()}: {facts[name]}" for name in ("commit", "date", "machine", "versions")),
        f"Target: {target['name']}, {target['devices']} x {target['kind']}, {target['clock'] / 1e9:.2f} GHz, "
        f"{byte_text(target['memory_bytes'])} each; figures of {SOURCE}",
        f"Data: {results['data']}; {results['rows']:,} examples on each device, {results['batch_size']:,} in all",
        f"Loops whose passes the program does not know: {_trips(results)}",
        *results["notes"],
    ]
    blocks = [f"# Estimated by the TPU compiler, {facts['date'].split()[0]}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join([*blocks, ESTIMATED, MODEL, tables(results)]) + "\n"


def _trips(results: Mapping[str, Any]) -> str:
    return "counted once each" if results["trips"] is None else f"counted {results['trips']} times each (--trips)"


def _tables(results: Mapping[str, Any]) -> list[Table]:
    phases = results["phases"]
    fitting = [phase for phase in phases if phase["fits"]]
    found = [_steps(results, fitting)] if fitting else []
    found += [_programs(phases)]
    if too_large := [phase for phase in phases if not phase["fits"]]:
        found.append(_too_large(too_large, results))
    if fitting:
        found.append(_parts(fitting))
    if any(phase["loops"] for phase in fitting):
        found.append(_loops(fitting, results))
    if any(phase["collectives"] for phase in fitting):
        found.append(_collectives(fitting))
    return found


def _steps(results: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> Table:
    header = ["phase", "M cycles", "computing ms", "interconnect ms", "examples/s/device", "examples/s"]
    header += ["of one device's", "of the peak", "bound by"]
    return Table(header, [_step_row(phase) for phase in phases], f"Steps on {results['target']['name']}, estimated")


def _step_row(phase: Mapping[str, Any]) -> list[str]:
    efficiency = phase.get("efficiency")
    return [
        phase["name"],
        f"{phase['cycles'] / 1e6:.3g}",
        _milliseconds(phase["computing_seconds"]),
        _milliseconds(phase["step_seconds"] - phase["computing_seconds"]),
        f"{phase['examples_per_second_per_device']:,.0f}",
        f"{phase['examples_per_second']:,.0f}",
        "-" if efficiency is None else _percent(efficiency),
        _percent(phase["share_of_peak"]),
        f"{phase['bound']} ({_percent(phase['shares'][phase['bound']])})",
    ]


def _programs(phases: Sequence[Mapping[str, Any]]) -> Table:
    header = ["phase", "compile s", "MACs/step", "arguments", "temporary", "peak", "operations"]
    rows = []
    for phase in phases:
        row = [phase["name"], f"{phase['compile_seconds']:.1f}", count_text(phase["macs"])]
        if phase["fits"]:
            sizes = (phase["program"][f"{name}_bytes"] for name in ("argument", "temporary", "peak"))
            row += [*map(byte_text, sizes), f"{phase['operations']:,}"]
        else:
            row += ["-", "-", f"{byte_text(phase['wanted_bytes'])}: does not fit", "-"]
        rows.append(row)
    return Table(header, rows, "Programs; bytes are those of one device")


def _too_large(phases: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Table:
    rows = [
        [phase["name"], each["part"], each["shape"], byte_text(each["bytes"]), str(each["count"])]
        for phase in phases
        for each in phase["largest"]
    ]
    notes = [f"{phase['name']}: {phase['message']}" for phase in phases]
    title = f"What does not fit into a device of {results['target']['name']}: the largest arrays of the step"
    return Table(["phase", "part", "shape over all devices", "bytes of one", "how many"], rows, title, notes)


def _parts(phases: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [phase["name"], part, f"{cycles / 1e6:.4g}", _percent(cycles / phase["cycles"])]
        + [_percent(phase["part_shares_of_peak"][part])]
        for phase in phases
        for part, cycles in phase["parts"].items()
    ]
    return Table(["phase", "part", "M cycles", "of the step", "of the peak"], rows, "Parts of the step, estimated")


def _loops(phases: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Table:
    rows = [
        [
            phase["name"],
            loop["part"],
            f"{loop['cycles'] / 1e3:.4g}",
            str(loop["trips"]),
            "yes" if loop["known"] else "no",
        ]
        for phase in phases
        for loop in phase["loops"]
    ]
    notes = [] if all(row[-1] == "yes" for row in rows) else [f"Passes that are not known are {_trips(results)}."]
    header = ["phase", "part", "k cycles a pass", "passes counted", "known"]
    return Table(header, rows, "Loops, each time that they are reached, estimated", notes)


def _collectives(phases: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [phase["name"], each["kind"], each["axis"], str(each["count"]), byte_text(each["bytes"])]
        + [f"{1e6 * each['seconds']:.4g}"]
        for phase in phases
        for each in phase["collectives"]
    ]
    return Table(
        ["phase", "collective", "axis", "count", "bytes/device", "us"], rows, "Collectives of a step, estimated"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
