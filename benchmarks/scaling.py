"""What a pod would do: a forecast from the program of a step, compiled for several devices.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m emokd.benchmark --config=FILE --data=fake \
      --steps=1 --warmup=0 --json=FILE.json
    python benchmarks/scaling.py --results=FILE.json,... [--compiled=FILE.json,...] [--iterations=60] [--page=FILE]

Nothing is measured here, and of the results no time is used: they give the configuration, the multiply-accumulates and
the collectives. The model, in words, is `model`; the machines are `MACHINES`, with their makers' figures. `--compiled`
takes results of `emokd.benchmark --target=v5e:...`: their share of the peak stands in the place of `SHARE`.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from absl import flags
from compiled_share import Key, comparison, key_of, read_programs, share_of_peak

from emokd.errors import InputError
from emokd.files import write_whole
from emokd.jobs.command import run
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table

SHARE = 0.05
"""Of the matrix peak, that networks reach of which no program is given (`--compiled`)."""
LATENCY = 20e-6
"""Seconds before a collective's first byte."""
LAUNCH = 5e-6
"""Seconds that a pass over a matrix takes at least."""
BANDWIDTH = 0.8
"""Of the memory's speed, that a pass over a large matrix reaches."""
COMPARING = 0.25
"""Of the matrix peak, that products of rows with rows reach: their 30 to 64 columns do not fill a unit of 128."""
PRODUCTS = 6
"""bfloat16 products for one of float32 at the highest precision."""
ITERATIONS = 60
"""Of the transport between student and teacher: a run of configs/mtpkdot/ravdess.py logged 50 to 70."""
DEBIASING = 10
"""Of the transport of either to itself: the least that the solver does, and all it did in the same run."""
CHECKED = 10
"""Iterations from one look at the marginals to the next."""
DEVICES = (4, 8, 16, 64, 256)
"""Sizes of the first machine at which phases that compare rows are forecast."""


def model(iterations: int) -> tuple[str, ...]:
    """The model in words."""
    return (
        "Each device keeps the batch of the configuration, so the global batch grows with the devices.",
        f"The networks' multiply-accumulates divide over devices, which compute at {SHARE:.0%} of their matrix peak; "
        "on a TPU v5e, where a program that its own compiler made is given, at the share that the compiler estimates.",
        f"A collective takes {1e6 * LATENCY:.0f} µs and its bytes at the link's speed, twice for an all-reduce (a "
        "ring); none of it is hidden behind computing.",
        "Gathered rows grow with the devices, gradients do not; how many collectives there are does not change.",
        "What compares gathered rows is done whole by every device. Similarities, costs and kernels are float32 "
        "matrices of rows x rows, (2 rows)^2 for MMD. Their products are of the highest precision, "
        f"{PRODUCTS} of bfloat16 each, at {COMPARING:.0%} of the matrix peak.",
        f"Everything elementwise is counted as passes over such a matrix: 4 bytes an entry at {BANDWIDTH:.0%} of the "
        f"memory's speed, and {1e6 * LAUNCH:.0f} µs at least. Exponentials are taken to be done meanwhile, and caches "
        "to hold nothing, which is too slow for matrices of some MiB.",
        f"Transport: {iterations} iterations between student and teacher, {DEBIASING} of each to itself (debiasing), "
        f"two softmins each; every {CHECKED} iterations one more softmin for the marginals, two in debiasing; one for "
        f"the mass at the end: {softmins(iterations)} in all. A softmin is two passes, the maximum and the sum of "
        "exponentials. Costs are worked out once. The gradient is that of the last plan: there is no second loop.",
        "A teacher that weighs nothing is not transported to, but its similarities and its centroid are worked out. "
        "Sorting rows for their anchors takes log2(rows) passes.",
        "GiB of rows^2 is what must be held of such matrices at least. Where it exceeds the device's memory, the rates "
        "are in brackets.",
        "local: `config.structure.rows` is the rows of a device, so that each compares its own. Without this word it "
        "is 0: all rows of the batch.",
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
      bandwidth: bytes a second of one device's memory.
      memory: bytes of it.
    """

    name: str
    devices: int
    per_host: int
    flops: float
    link: float
    bandwidth: float
    memory: float


MACHINES = (
    # 197 TFLOP/s; four links of 400 Gbit/s, a ring uses one in each direction; 16 GB at 819 GB/s. Hosts of 4 chips.
    Machine("TPU v5e-256", 256, 4, 197e12, 2 * 50e9, 819e9, 16e9),
    # 989 TFLOP/s dense; 400 Gbit/s of network for each GPU; 80 GB at 3.35 TB/s. Hosts of 8.
    Machine("64 H100 SXM", 64, 8, 989e12, 50e9, 3.35e12, 80e9),
)


@dataclasses.dataclass(frozen=True)
class Relations:
    """What every device does with the rows that it compares.

    Attributes:
      macs: multiply-accumulates, over rows^2.
      passes: over a matrix of rows x rows.
      side: of such a matrix, over the rows.
      sorts: matrices whose rows are sorted.
      matrices: held at once.
    """

    macs: float
    passes: float
    side: int = 1
    sorts: int = 0
    matrices: float = 1.0

    def seconds(self, rows: int, machine: Machine) -> float:
        """On one device."""
        products = 2 * self.macs * rows**2 * PRODUCTS / (machine.flops * COMPARING)
        each = max(LAUNCH, 4 * (self.side * rows) ** 2 / (machine.bandwidth * BANDWIDTH))
        return products + (self.passes + self.sorts * math.log2(rows)) * each

    def held(self, rows: int) -> float:
        """Bytes."""
        return 4 * self.matrices * (self.side * rows) ** 2


def softmins(iterations: int) -> int:
    """Softmins of one divergence, as ott-jax works it out: between student and teacher, and each to itself."""
    between = 2 * iterations + math.ceil(iterations / CHECKED) + 1
    itself = 2 * DEBIASING + 2 * math.ceil(DEBIASING / CHECKED) + 1
    return between + 2 * itself


def relations(config: Mapping[str, Any], phase: str, iterations: int) -> Relations | None:
    """What a phase compares, None where it compares nothing.

    Args:
      config: the configuration.
      phase: its name.
      iterations: of the transport between student and teacher.

    Raises:
      InputError: the transport is not of the kind that is counted.
    """
    if config["recipe"] != "mtpkdot":
        return None
    modalities = config["modalities"].values()
    if phase == "hallucinate" and config["hallucination"]["loss"] == "mmd":
        imagined = sum(modality["privileged"] for modality in modalities)
        # Forward a product, backward two, of 2 rows each. The distances are written, read forward and backward; their
        # gradient is written and read twice. One modality after another, so what is held does not add up.
        return Relations(12 * config["width"] * imagined, 6 * imagined, 2, matrices=2)
    weights = config["objective"]
    if phase != "student" or not (weights["transport"] or weights["centroid"]):
        return None
    width = config["width"] * (1 if config["fusion"]["name"] == "transformer" else len(modalities))
    teachers = 1 if config["pool"] == "joint" else len(modalities) + 1
    # Of each teacher: its similarities, and the student's on its rows with two products backward; written, stacked,
    # read for their range, centroid and gradient.
    macs, passes, sorts, matrices = 4.0 * width * teachers, 12.0 * teachers, 0, 2.0
    if weights["transport"]:
        structure = config["structure"]
        if structure["solver"] != "ott" or structure["anchors"] == "all":
            raise InputError(
                f"Transport by the solver {structure['solver']!r} to the anchors {structure['anchors']!r} is not "
                "counted here, only 'ott' and 'least' or 'most'."
            )
        last = config["weighting"][-1]
        chosen = last["name"] == "most_confident" and last.get("per", "batch") == "batch"
        solved = 1 if chosen else teachers
        # The student's similarities, forward and backward, and three costs with the gradient of two problems, of which
        # debiasing has two sides. Beside the softmins both clouds are shifted, costs written, plans written and read.
        macs += width + solved * (3 * width + 6 * structure["k"])  # the first for the range in the log
        passes += solved * (2 * softmins(iterations) + 20)
        sorts = solved
        # Similarities of all teachers are stacked, and so is what the backward pass keeps of each, with a mask of
        # bytes; at work are three costs, the student's similarities, both shifted.
        matrices = 2.25 * teachers + 6
    return Relations(macs, passes, sorts=sorts, matrices=matrices)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """One phase on one machine.

    Attributes:
      compute: seconds of a step in which one device computes what divides over devices.
      relations: seconds in which it compares rows.
      exchange: seconds of its collectives.
      rows: how many are compared; 0 for none.
      held: bytes of the matrices that this takes.
      rate: examples a second of all devices.
      efficiency: of the time, what is computing that divides over devices.
    """

    compute: float
    relations: float
    exchange: float
    rows: int
    held: float
    rate: float
    efficiency: float


def forecast(
    results: Mapping[str, Any],
    phase: Mapping[str, Any],
    work: Relations | None,
    machine: Machine,
    *,
    local: bool,
    share: float = SHARE,
) -> Forecast:
    """A phase's step on a machine, by `model`.

    Args:
      results: of `emokd.benchmark`, on several devices.
      phase: one of its phases.
      work: what the phase compares.
      machine: where it would run, with the batch of all those devices on each of its own.
      local: compare each device's rows alone.
      share: of the matrix peak, that the networks reach.

    Raises:
      InputError: the phase gathers rows, and nothing is known of what it does with them.
    """
    batch, compiled = results["batch_size"], results["devices"]["count"]
    collectives = phase["program"]["collectives"]
    if "all-gather" in collectives and work is None:
        raise InputError(f"Phase {phase['name']!r} gathers arrays, and how it compares them is not known here.")
    compute = 2 * divided(phase, results["networks"], work) / (machine.flops * share)
    exchange = 0.0
    for kind, found in collectives.items():
        if local and kind in ("all-gather", "reduce-scatter"):
            continue
        # Of a reduce-scatter the bytes are one device's part, and all parts travel.
        grows = {"all-reduce": 2, "reduce-scatter": compiled * machine.devices}.get(kind, machine.devices)
        exchange += found["count"] * LATENCY + found["bytes"] * grows / machine.link
    rows = 0 if work is None else batch if local else batch * machine.devices
    comparing = work.seconds(rows, machine) if work is not None else 0.0
    held = work.held(rows) if work is not None else 0.0
    seconds = compute + comparing + exchange
    return Forecast(compute, comparing, exchange, rows, held, batch * machine.devices / seconds, compute / seconds)


def divided(phase: Mapping[str, Any], networks: Collection[str], work: Relations | None) -> float:
    """Multiply-accumulates that divide over devices: all, or the networks' alone where the step compares rows too.

    Networks measured alone can do more than in the step, but not more than the whole step.
    """
    if work is None:
        return phase["macs"]
    return min(phase["macs"], sum(part["macs"] or 0 for part in phase["split"] if part["part"] in networks))


HEADER = (
    *("rows compared", "MiB exchanged", "networks ms", "rows^2 ms", "exchange ms", "GiB of rows^2"),
    *("examples/s", "efficiency", "examples/s/host"),
)


def cells(phase: Mapping[str, Any], found: Forecast, machine: Machine, *, local: bool) -> list[str]:
    """A forecast under `HEADER`."""
    exchanged = sum(entry["bytes"] for entry in phase["program"]["collectives"].values())
    rates = [f"{found.rate:.3g}", f"{found.rate / max(machine.devices / machine.per_host, 1):.3g}"]
    if found.held > machine.memory:
        rates = [f"({rate})" for rate in rates]
    return [
        f"{found.rows:,}{' local' if local else ''}" if found.rows else "-",
        f"{exchanged / 2**20:.2f}",
        f"{1e3 * found.compute:.3g}",
        f"{1e3 * found.relations:.3g}",
        f"{1e3 * found.exchange:.3g}",
        f"{found.held / 2**30:.2g}",
        rates[0],
        f"{found.efficiency:.1%}",
        rates[1],
    ]


def tables(results: Mapping[str, Any], iterations: int, programs: Mapping[Key, Any]) -> list[Table]:
    """All phases of a configuration on all machines; then those that compare rows on more and more devices.

    Where the TPU's compiler made programs of them, also what these change.
    """
    batch, name = results["batch_size"], results["data"]["name"]
    whole, growing, changed = [], [], []
    for phase in results["phases"]:
        work = relations(results["config"], phase["name"], iterations)
        share, program = SHARE, programs.get(key_of(results["config"], name, phase["name"]))
        if program is not None:
            share = share_of_peak(program, None if work is None else results["networks"])
            assumed = forecast(results, phase, work, MACHINES[0], local=False)
            changed.append((phase["name"], 1e3 * assumed.compute, share))
        for local in (False, True) if work is not None else (False,):
            for machine in MACHINES:
                reached = share if machine is MACHINES[0] else SHARE
                found = forecast(results, phase, work, machine, local=local, share=reached)
                whole.append([phase["name"], machine.name, *cells(phase, found, machine, local=local)])
        for devices in DEVICES if work is not None else ():
            machine = dataclasses.replace(MACHINES[0], devices=devices)
            found = forecast(results, phase, work, machine, local=False, share=share)
            growing.append([phase["name"], str(devices), *cells(phase, found, machine, local=False)])
    title = f"{name}, {batch} examples on each device"
    made = [Table(["phase", "machine", *HEADER], whole, title=f"{title}; compiled for {results['devices']['count']}")]
    if growing:
        made.append(Table(["phase", "devices", *HEADER], growing, title=f"{title} of a TPU v5e"))
    if changed:
        made.append(comparison(changed, SHARE))
    return made


def read(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Results of `emokd.benchmark`.

    Raises:
      InputError: a file is missing or no such result, is of one device, or compares each device's rows alone.
    """
    found = []
    for path in paths:
        try:
            results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: {error}. Make it with python -m emokd.benchmark --json={path}.") from error
        if results["devices"]["count"] == 1:
            raise InputError(f"{path} is of one device, whose program exchanges nothing: make it on several.")
        if rows := results["config"].get("structure", {}).get("rows"):
            raise InputError(
                f"{path} compares groups of {rows} rows: give --config.structure.rows=0; groups on a device are "
                "forecast as well."
            )
        found.append(results)
    return found


def made_by(results: Mapping[str, Any]) -> str:
    """The command that made a result."""
    facts, devices = results["provenance"], results["devices"]
    setting = (
        f"XLA_FLAGS=--xla_force_host_platform_device_count={devices['count']} " if devices["kind"] == "cpu" else ""
    )
    return f"Input: `{setting}{facts['command']}`, commit {facts['commit']}, {facts['date']}"


def page(paths: Sequence[str], iterations: int, compiled: Sequence[str] = ()) -> str:
    """The forecasts."""
    found, programs = read(paths), read_programs(compiled)
    facts = provenance()
    lines = [
        f"- Command: `{facts.pop('command')}`",
        *(f"- {name.capitalize()}: {text}" for name, text in facts.items()),
        *(f"- {made_by(results)}" for results in found),
    ]
    words = ["A forecast, not a measurement. The model:", "\n".join(f"- {sentence}" for sentence in model(iterations))]
    blocks = [table.markdown() for results in found for table in tables(results, iterations, programs)]
    return "\n\n".join(["# What a pod would do", "\n".join(lines), *words, *blocks]) + "\n"


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    text = page(flags.FLAGS.results, flags.FLAGS.iterations, flags.FLAGS.compiled)
    print(text, end="")
    if flags.FLAGS.page:
        write_whole(pathlib.Path(flags.FLAGS.page), text)


if __name__ == "__main__":
    flags.DEFINE_list("results", None, "Results of emokd.benchmark on several devices.", required=True)
    flags.DEFINE_list("compiled", [], "Results of emokd.benchmark --target=v5e:2x2, say.")
    flags.DEFINE_integer(
        "iterations", ITERATIONS, "Of Sinkhorn, between student and teacher (transport/iterations).", 1
    )
    flags.DEFINE_string("page", None, "Write the page to this file too.")
    run(main)
