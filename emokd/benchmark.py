"""Measures the compiled step of every phase of a configuration; docs/benchmarks/README.md says what is measured.

python -m emokd.benchmark --config=configs/smkd/quickstart.py --data=fake [--page=FILE] [--json=FILE] [--trace=FOLDER]
"""

import pathlib

import jax
from absl import flags

from emokd.benchmarking import page
from emokd.benchmarking.batches import KINDS
from emokd.benchmarking.phases import benchmark
from emokd.benchmarking.timing import Rule
from emokd.configuration.flag import define_config_flag
from emokd.files import write_whole
from emokd.jobs.command import run

CONFIG = define_config_flag()
DATA = flags.DEFINE_enum("data", "real", KINDS, "Batches as training reads them, or one random batch on the device.")
STEPS = flags.DEFINE_integer("steps", 20, "How many steps are timed.")
WARMUP = flags.DEFINE_integer("warmup", 3, "How many steps go before them.")
PAGE = flags.DEFINE_string("page", None, "Write a Markdown page to this file.")
JSON = flags.DEFINE_string("json", None, "Write everything that was measured to this file.")
TRACE = flags.DEFINE_string("trace", None, "Folder for a profile of some steps of each phase.")


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program would have no compile time to measure
    trace = pathlib.Path(TRACE.value) if TRACE.value else None
    results = benchmark(CONFIG.value, data=DATA.value, rule=Rule(WARMUP.value, STEPS.value), trace=trace)
    print(page.tables(results))
    if jax.process_index() == 0:
        for path, text in ((PAGE.value, page.page), (JSON.value, page.to_json)):
            if path:
                file = pathlib.Path(path)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, text(results))


if __name__ == "__main__":
    run(main)
