"""Memory: the host's over a thousand training steps, and the device's for each phase, beside PyTorch's.

    python benchmarks/memory.py [--steps=1000] [--small] [--page=FILE]

Host: a small student trains on painted faces by the real loop, with evaluations and checkpoints; the process's resident
memory is read at every batch, while the number of epochs grows to hundreds. PyTorch's plain loop does as much with the
same pictures, in a process of its own. Device: what XLA assigns to each phase's
program (arguments, results that do not take over an argument's memory, temporaries). PyTorch: the most that its
allocator had handed out at any time during a step, with parameters, moments and batch; on a GPU by its own count, on
CPU replayed from its profiler, where scratch that libraries allocate by themselves is not seen.
"""

import dataclasses
import functools
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable

import mtpkdot_step
import numpy as np
import smkd_step
import supervised_step
from side_by_side import Page, Settings, launch, precision
from training_step import TrainingStep

from emokd.benchmarking.program import describe_program
from emokd.configuration import defaults
from emokd.data.cache.reader import CENTRE
from emokd.jobs.job import create_job
from emokd.recipes import supervised
from emokd.reporting.table import Table
from emokd.training import loop

MIB = 2**20
MARK = "measured step"


def resident_bytes() -> int:
    """The process's resident memory, from Linux's /proc."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def create_host_job(steps: int) -> loop.Job:
    """A small student of 64 painted faces, evaluated twenty times on the way."""
    config = supervised.default_config()
    config.batch_size, config.devices = 32, 1
    config.data.source, config.data.canvas, config.data.in_memory = "painter", 16, True
    config.data.options = {"size": 16, "train": 64, "validation": 32, "test": 32, "seed": 0}
    config.student = defaults.network("basic_cnn", size=16, width=4)
    config.phases.train = defaults.phase(steps=steps, learning_rate=1e-3)
    config.evaluation = defaults.every(percent=5)
    return create_job(config, lambda file, name, runs: pathlib.Path())


def train_and_watch(steps: int, folder: pathlib.Path) -> tuple[np.ndarray, int]:
    """Trains by the real loop; gives the resident bytes at every training batch, and the number of epochs."""
    job = create_host_job(steps)
    seen: list[int] = []

    def attach(batch):
        if batch["view"][0] != CENTRE:
            seen.append(resident_bytes())
        return batch

    loop.train(dataclasses.replace(job, attach=attach), folder)
    return np.array(seen[:steps]), steps * job.config.batch_size // len(job.splits["train"])


def watch_torch(steps: int, folder: pathlib.Path) -> np.ndarray | str:
    """The same of PyTorch's plain loop on the same pictures, in a process of its own; or why there is nothing."""
    examples = create_host_job(steps).splits["train"]
    pictures = np.stack([examples.inputs["image"](i) for i in range(len(examples))])
    np.savez(folder / "pictures.npz", image=pictures, label=examples.columns["expression"])
    script = pathlib.Path(__file__).with_name("torch_memory.py")
    command = [sys.executable, str(script), str(folder / "pictures.npz"), str(steps), str(max(steps // 20, 1))]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"not measured: {done.stderr.strip().splitlines()[-1]}"
    return np.array(json.loads(done.stdout))


def host_table(steps: int) -> Table:
    """Resident memory at parts of the way, and its slope over the second half."""
    with tempfile.TemporaryDirectory() as folder:
        ours, epochs = train_and_watch(steps, pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        theirs = watch_torch(steps, pathlib.Path(folder))
    places = [int(part * (steps - 1)) for part in (0.1, 0.25, 0.5, 0.75, 1.0)]
    columns, notes = {"emokd": ours, "PyTorch": theirs}, [f"{epochs} epochs."]
    for name, seen in columns.items():
        notes.append(f"{name}, {seen if isinstance(seen, str) else growth(seen)}.")
    rows = [
        [str(place + 1), *("-" if isinstance(seen, str) else f"{seen[place] / MIB:.1f}" for seen in columns.values())]
        for place in places
    ]
    return Table(["step", *(f"{name}, resident MiB" for name in columns)], rows, title="Host", notes=notes)


def growth(seen: np.ndarray) -> str:
    """How the second half rises, in words."""
    second = seen[len(seen) // 2 :]
    slope = float(np.polyfit(np.arange(len(second)), second, 1)[0])
    grown = slope * len(second)
    return (
        f"over the second half, the fitted line rises by {slope:.0f} bytes a step: "
        f"{grown / MIB:.2f} MiB, or {grown / second[0]:.2%}"
    )


def program_row(name: str, step: TrainingStep, theirs: str = "-") -> list[str]:
    """What XLA assigns to a step, and PyTorch's peak in the same step."""
    program = describe_program(step.step.compiled)
    sizes = ("argument_bytes", "output_bytes", "aliased_bytes", "temporary_bytes", "peak_bytes")
    return [name, *("-" if program[size] is None else f"{program[size] / MIB:.1f}" for size in sizes), theirs]


def peak_of(make: Callable[[], Callable]) -> int:
    """The most bytes that PyTorch's allocator has handed out at a time during the second step of `make()`."""
    import torch

    if torch.cuda.is_available():
        call = make()
        call()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call = make()
        call()
        with torch.profiler.record_function(MARK):
            call()
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begun = next(event.start_ns() for event in events if event.name() == MARK)
    held = most = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held) if event.start_ns() >= begun else held
    return most


def torch_peak(make: Callable[[str], Callable]) -> str:
    """PyTorch's peak in MiB, of the eager step; or why there is none."""
    try:
        return f"{peak_of(functools.partial(make, 'eager')) / MIB:.1f}"
    except Exception as error:  # not installed, or a profiler without memory events
        return f"not measured: {type(error).__name__}"


def device_table(small: bool) -> Table:
    """Every phase of the benchmarked recipes; PyTorch's side of those that it has."""
    rows = []
    size, batch_size = (32, 2) if small else (224, 8)
    for backbone in supervised_step.NETWORKS:
        step = supervised_step.create_step(backbone, size, batch_size)
        theirs = torch_peak(functools.partial(supervised_step.create_torch_call, step, backbone))
        rows.append(program_row(f"supervised {backbone}, batch of {batch_size}", step, theirs))
    size, batch_size = (32, 4) if small else (96, 32)
    models = smkd_step.create_teachers(size)
    for name, cached in (("cached", True), ("live", False)):
        step = smkd_step.create_step(models, size, batch_size, cached=cached)
        theirs = torch_peak(functools.partial(smkd_step.create_torch_call, step, models, cached))
        rows.append(program_row(f"smkd distill, {name}, batch of {batch_size}", step, theirs))
    rows += other_phases("smkd", step)
    step = mtpkdot_step.create_step(mtpkdot_step.create_config(16 if small else 128))
    theirs = torch_peak(functools.partial(mtpkdot_step.create_torch_call, step))
    rows.append(program_row(f"mtpkdot student, batch of {step.config.batch_size}", step, theirs))
    rows += other_phases("mtpkdot", step)
    header = ["phase", "arguments MiB", "results", "of these aliased", "temporary", "peak", "PyTorch's peak"]
    note = "XLA's peak is arguments + results - aliased + temporary; arguments hold the state of all phases."
    return Table(header, rows, title="Device", notes=[note])


def other_phases(recipe: str, step: TrainingStep) -> list[list[str]]:
    """The phases of a step's recipe that come without a PyTorch side."""
    names = [phase.name for phase in step.recipe.phases]
    others = [name for index, name in enumerate(names) if index != step.index]
    return [
        program_row(f"{recipe} {name}", TrainingStep(step.recipe, step.config, name, step.batch)) for name in others
    ]


def measure(settings: Settings) -> Page:
    """The host first, while the process is young; then the programs."""
    tables = [host_table(settings.rule.steps), device_table(settings.small)]
    rule = "host memory is read at every training batch; programs are compiled, not timed"
    return Page("Memory", tables, {"precision": precision(), "rule": rule})


if __name__ == "__main__":
    launch(measure, steps=1000)
