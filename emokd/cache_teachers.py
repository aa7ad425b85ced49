"""Stores what the frozen teachers of a configuration say, so that training reads it instead of computing it.

python -m emokd.cache_teachers --config=configs/smkd/fi.py --config.data.views=8 --output=runs/cache/fi
python -m emokd.train --config=configs/smkd/fi.py --config.data.views=8 --config.cache.dir=runs/cache/fi ...
"""

import pathlib

from absl import flags

from emokd import config as configuration
from emokd.command import run
from emokd.job import teacher_trainer, write_cache

OUTPUT = flags.DEFINE_string("output", None, "Folder of the cache.", required=True)
CONFIG = configuration.define_config_flag()


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    folder = pathlib.Path(OUTPUT.value)
    trainer = teacher_trainer(folder.with_name(f"{folder.name}_teachers"), CONFIG.value.data)
    written = write_cache(CONFIG.value, folder, trainer)
    key = written["key"]
    print(
        f"{', '.join(key['teachers'])}: {key['views'] + 1} views of {key['examples']}, "
        f"{written['bytes'] / 1e6:.1f} MB in {folder}"
    )


if __name__ == "__main__":
    run(main)
