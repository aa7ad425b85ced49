"""Measures the compiled step of every phase of a configuration; docs/benchmarks/README.md says what is measured.

python -m emokd.benchmark --config=configs/smkd/quickstart.py --data=fake [--page=FILE] [--json=FILE] [--trace=FOLDER]
python -m emokd.benchmark --config=configs/smkd/fi.py --target=v5e:16x16 [--rows=64] [--phases=distill] [--page=FILE]

With `--target` nothing runs: the TPU's own compiler says what each step would take there.
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from emokd.benchmarking import estimate_page, page
from emokd.benchmarking.batches import KINDS
from emokd.benchmarking.estimate import estimate
from emokd.benchmarking.phases import benchmark
from emokd.benchmarking.targets import find_target
from emokd.benchmarking.timing import Rule
from emokd.configuration.flag import define_config_flag
from emokd.errors import InputError
from emokd.files import write_whole
from emokd.jobs.command import run

CONFIG = define_config_flag()
DATA = flags.DEFINE_enum("data", "real", KINDS, "Batches as training reads them, or one random batch on the device.")
STEPS = flags.DEFINE_integer("steps", 20, "How many steps are timed.")
WARMUP = flags.DEFINE_integer("warmup", 3, "How many steps go before them.")
PAGE = flags.DEFINE_string("page", None, "Write a Markdown page to this file.")
JSON = flags.DEFINE_string("json", None, "Write everything that was measured to this file.")
TRACE = flags.DEFINE_string("trace", None, "Folder for a profile of some steps of each phase.")
TARGET = flags.DEFINE_string("target", None, "Compile for these TPUs, such as v5e:16x16, and run nothing.")
ROWS = flags.DEFINE_integer("rows", None, "With --target: examples on each device; config.batch_size unless given.", 1)
TRIPS = flags.DEFINE_integer("trips", None, "With --target: passes of loops that stop by what they compute.", 1)
PHASES = flags.DEFINE_list("phases", [], "With --target: phases to compile, with commas; all unless given.")


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would have no compile time to measure
    check_flags()
    if TARGET.value:
        target = find_target(TARGET.value)
        results = estimate(CONFIG.value, target, rows=ROWS.value or 0, trips=TRIPS.value, phases=PHASES.value)
        tell(results, estimate_page.tables, estimate_page.page)
    else:
        trace = pathlib.Path(TRACE.value) if TRACE.value else None
        results = benchmark(CONFIG.value, data=DATA.value, rule=Rule(WARMUP.value, STEPS.value), trace=trace)
        tell(results, page.tables, page.page)


def check_flags() -> None:
    """Refuses flags of the other kind of benchmark.

    Raises:
      InputError: a flag has no meaning with `--target`, or without it.
    """
    others = (DATA, STEPS, WARMUP, TRACE) if TARGET.value else (ROWS, TRIPS, PHASES)
    if given := [f"--{flag.name}" for flag in others if flag.present]:
        raise InputError(
            f"{', '.join(given)} has no meaning with --target, which runs nothing; leave it away."
            if TARGET.value
            else f"{', '.join(given)} is for --target alone; give --target=v5e:2x2, say, or leave it away."
        )


def tell(
    results: dict[str, Any], tables: Callable[[dict[str, Any]], str], whole: Callable[[dict[str, Any]], str]
) -> None:
    """Prints the tables, and writes the files that are asked for."""
    print(tables(results))
    if jax.process_index() == 0:
        for path, text in ((PAGE.value, whole), (JSON.value, page.to_json)):
            if path:
                file = pathlib.Path(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, text(results))


if __name__ == "__main__":
    run(main)
