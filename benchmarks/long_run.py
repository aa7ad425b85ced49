"""A long process: whether its memory, threads, open files and memory maps stay flat, and its pace.

    python benchmarks/long_run.py [--steps=10000] [--runs=500] [--alike] [--page=FILE]

Steps: one run on painted faces by the real loop, with an evaluation and a checkpoint every fiftieth of
it. Runs: a study's runs one after another in one process, each a few steps; without `--alike` each has
programs of its own, as where every run's teachers differ, and with it all share the first one's. The table has a row
for each twentieth, which is also printed when it is reached; the last line compares the pace of the last tenth with
that of the second. One core needs 3 minutes for 10,000 steps, and 40 seconds for a run with programs of its own, nearly
all of it XLA's, so 500 of these are five hours (XLA_FLAGS=--xla_backend_optimization_level=0 makes them shorter).
"""

import dataclasses
import functools
import pathlib
import tempfile
import time

import ml_collections
from absl import app, flags, logging

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.jobs.job import train
from emokd.recipes import supervised
from emokd.reporting.progress import Progress
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table
from emokd.studies.plan import Run
from emokd.studies.run import one_run
from emokd.training import memory
from emokd.training.programs import Programs

ROWS = 20


@dataclasses.dataclass(frozen=True)
class Look:
    """What a process holds at a moment.

    Attributes:
      done: steps or runs so far.
      seconds: since the first look.
      resident: MiB.
      threads: of the process.
      files: open ones.
      maps: memory maps.
    """

    done: int
    seconds: float
    resident: float
    threads: int
    files: int
    maps: int


def look(done: int, begun: float) -> Look:
    """What this process holds now, which is also printed; Linux alone says it."""
    own = pathlib.Path("/proc/self")
    now = Look(
        done,
        time.perf_counter() - begun,
        memory.resident_bytes() / 2**20,
        len(list((own / "task").iterdir())),
        len(list((own / "fd").iterdir())),
        len((own / "maps").read_bytes().splitlines()),
    )
    print(now, flush=True)
    return now


def small(steps: int) -> ml_collections.ConfigDict:
    """A small student of 64 painted faces."""
    config = supervised.default_config()
    config.batch_size, config.devices = 32, 1
    config.data.source, config.data.canvas, config.data.in_memory = "painter", 16, True
    config.data.options = {"size": 16, "train": 64, "validation": 32, "test": 32, "seed": 0}
    config.student = defaults.network("basic_cnn", size=16, width=4)
    config.phases.train = defaults.phase(steps=steps, learning_rate=1e-3)
    config.evaluation = defaults.every(percent=2)
    config.checkpoint.min_seconds = 0.0
    return config


def long_run(steps: int, folder: pathlib.Path) -> list[Look]:
    """Trains for so many steps, and looks after each."""
    begun, looks, count = time.perf_counter(), [], 0
    step = Progress.step

    def step_and_look(self: Progress, **arguments: float) -> None:
        nonlocal count
        step(self, **arguments)
        count += 1
        if count % max(steps // ROWS, 1) == 0:
            looks.append(look(count, begun))

    Progress.step = step_and_look  # type: ignore[method-assign]
    try:
        train(small(steps), folder, report=False)
    finally:
        Progress.step = step  # type: ignore[method-assign]
    return looks


def many_runs(runs: int, folder: pathlib.Path, alike: bool) -> list[Look]:
    """Does so many runs as a study does, and looks after each."""
    begun, looks = time.perf_counter(), []
    shared: dict[str, Programs] = {}
    whole = functools.partial(train, report=False, shared=shared)
    for number in range(runs):
        # A rate of its own makes a program of its own.
        rate = {} if alike else {"phases.train.learning_rate": 1e-3 * (1 + number / runs)}
        planned = Run("same", number, configuration.locked(small(4), {"seed": number, **rate}))
        one_run(planned, folder, whole, time.perf_counter)
        if (number + 1) % max(runs // ROWS, 1) == 0:
            looks.append(look(number + 1, begun))
    return looks


def page(title: str, looks: list[Look]) -> str:
    """The looks as a table, with the pace of the last tenth and of the second."""
    rows = [
        [f"{x.done}", f"{x.seconds:.0f}", f"{x.resident:.0f}", f"{x.threads}", f"{x.files}", f"{x.maps}"] for x in looks
    ]
    table = Table([title, "seconds", "resident MiB", "threads", "open files", "memory maps"], rows).markdown()
    tenth = max(len(looks) // 10, 1)
    if len(looks) <= 3 * tenth:
        return table
    first, last = (
        (looks[end].done - looks[begin].done) / (looks[end].seconds - looks[begin].seconds)
        for begin, end in ((tenth, 2 * tenth), (-1 - tenth, -1))
    )
    return f"{table}\n{title} a second: {first:.3g} in the second tenth, {last:.3g} in the last.\n"


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    settings = flags.FLAGS
    logging.set_verbosity(logging.WARNING)
    facts = provenance()
    parts = [f"Command: `{facts['command']}`. {facts['date']}, commit {facts['commit']}, {facts['machine']}.\n"]
    with tempfile.TemporaryDirectory() as folder:
        if settings.steps:
            parts.append(page("steps", long_run(settings.steps, pathlib.Path(folder) / "long")))
        if settings.runs:
            parts.append(page("runs", many_runs(settings.runs, pathlib.Path(folder), settings.alike)))
    text = "\n".join(parts)
    print(text)
    if settings.page:
        pathlib.Path(settings.page).write_text(text)


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 10_000, "Steps of the long run; 0: none.", 0)
    flags.DEFINE_integer("runs", 500, "Runs of the study; 0: none.", 0)
    flags.DEFINE_bool("alike", False, "The study's runs share their programs.")
    flags.DEFINE_string("page", None, "Markdown file to write; empty: the standard output alone.")
    app.run(main)
