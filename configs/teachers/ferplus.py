"""The faces teacher: FER+ votes, eight expressions of 48 x 48 grey faces, a basic CNN from nothing.

Data: FER2013 with the FER+ votes (Barsoum et al. 2016), protocol "cross_entropy": the votes'
distribution is the target.

Command:  python -m emokd.train --config=configs/teachers/ferplus.py --workdir=runs/teachers/ferplus
Expected: see docs/results/teachers.md.
Hardware: 2 CPU cores. Time: 14 minutes on one of them, beside other work; `:small` is a narrow network in 20 steps.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import supervised


def get_config(arg=""):
    """The configuration; `small` is the same job in a minute."""
    check_argument(arg)
    small = arg == "small"
    config = supervised.default_config()
    config.batch_size = 128
    config.data.source = "ferplus"
    config.data.options = {"protocol": "cross_entropy"}
    config.data.canvas = 48
    config.data.in_memory = not small
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1), "saturation": 0.0})
    config.student = defaults.network("basic_cnn", size=48, width=8 if small else 32)
    config.phases.train = defaults.phase(**({"steps": 20} if small else {"epochs": 3}), learning_rate=2e-3)
    return config
