"""Soft targets on FER+: a basic CNN learns eight expressions from the votes and from a larger network.

Loss: (1 - alpha) cross-entropy with the votes + alpha T^2 KL to the teacher; FER+ has no valence and arousal, so there
is no bound. The teacher is trained by configs/teachers/ferplus_lite0.py, by this run unless a checkpoint is given.
Data: FER2013 with the FER+ votes; the set's own splits.

Command:  python -m emokd.train --config=configs/bounded/ferplus.py --workdir=runs/bounded_ferplus
Expected: not measured at this length; docs/results/bounded_ferplus.md has a narrower student's two
epochs, accuracy .716.
Hardware: 2 CPU cores. Time: 21 minutes for the teacher on one of them, the student not measured; `:small` 83 s.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import bounded


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    small = arg == "small"
    teacher = "configs/teachers/ferplus_lite0.py" + (":small" if small else "")
    config = bounded.default_config()
    config.batch_size = 128
    config.data = configuration.load(teacher).data
    config.teachers.faces = defaults.teacher(train=teacher)
    config.student = defaults.network("basic_cnn", size=48)
    config.phases.distill = defaults.phase(**({"steps": 3} if small else {"epochs": 10}), learning_rate=2e-3)
    return config
