"""Trains, or continues, the job that a configuration describes.

python -m emokd.train --config=configs/smkd/quickstart.py --workdir=runs/quickstart [--config.seed=1]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

import jax
from absl import flags, logging

from emokd.configuration import config as configuration
from emokd.configuration.flag import define_config_flag, file_of
from emokd.jobs.began import ACCEPT_HELP
from emokd.jobs.command import run
from emokd.jobs.job import train
from emokd.reporting.scoreboard import scoreboard

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs, scores and the student.", required=True)
ACCEPT = flags.DEFINE_bool("accept_changed_data", False, ACCEPT_HELP)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    config = CONFIG.value
    for line in configuration.diff(config, configuration.load(file_of(CONFIG))):
        logging.info("config: %s", line)
    scores = train(config, WORKDIR.value, accept_changed_data=ACCEPT.value)
    if jax.process_index() == 0:
        print(scoreboard(scores))
        print(f"\nWorkdir: {pathlib.Path(WORKDIR.value).absolute()}")


if __name__ == "__main__":
    run(main, several_processes=True)
