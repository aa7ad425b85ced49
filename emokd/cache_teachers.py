"""Stores the outputs of a configuration's frozen teachers, so that training reads them instead of computing them.

The same command continues an interrupted cache.

python -m emokd.cache_teachers --config=configs/smkd/fi.py --config.data.views=8 --output=runs/cache/fi
python -m emokd.train --config=configs/smkd/fi.py --config.data.views=8 --config.cache.dir=runs/cache/fi ...
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

import jax
from absl import flags

from emokd.configuration.flag import define_config_flag
from emokd.data.cache.writer import in_words
from emokd.jobs.command import run
from emokd.jobs.job import teacher_trainer, write_cache

OUTPUT = flags.DEFINE_string("output", None, "Folder of the cache.", required=True)
CONFIG = define_config_flag()


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    folder = pathlib.Path(OUTPUT.value)
    trainer = teacher_trainer(folder.with_name(f"{folder.name}_teachers"), CONFIG.value.data)
    written = write_cache(CONFIG.value, folder, trainer)
    if jax.process_index() == 0:
        key = written["key"]
        print(f"{', '.join(key['teachers'])}: {key['views'] + 1} views, {in_words(written['bytes'])} in {folder}")


if __name__ == "__main__":
    run(main, several_processes=True)
