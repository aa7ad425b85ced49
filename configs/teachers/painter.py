"""A teacher for the painted faces: expressions, valence and arousal, a basic CNN from nothing.

The data is synthetic (the embedded painter). configs/bounded/quickstart.py trains this teacher by itself.

Command:  python -m emokd.train --config=configs/teachers/painter.py --workdir=runs/teachers/painter
Expected: accuracy .67, mean CCC .78 (one run of 2026-11-25 at commit 34e3121). Hardware: 2 CPU cores. Time: about a
minute; `:small` is 10 steps, 13 s.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import supervised


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    small = arg == "small"
    config = supervised.default_config()
    config.batch_size = 64
    config.data = configuration.load("configs/smkd/quickstart.py" + (":small" if small else "")).data
    config.targets = ("expression", "valence_arousal")
    config.affect_loss = "ccc"
    config.student = defaults.network("basic_cnn", size=48, width=24)
    config.phases.train = defaults.phase(**({"steps": 10} if small else {"epochs": 10}), learning_rate=3e-3)
    config.evaluation = defaults.every(percent=50)
    return config
