"""Teacher-bounded distillation on painted faces: a basic CNN teaches a narrower one.

Loss: soft targets and the teacher-bounded regression loss (emokd/recipes/bounded.py). The teacher is trained by this
run, with configs/teachers/painter.py. The data is synthetic (the embedded painter): it shows the machine at work and
proves nothing about the paper.

Command:  python -m emokd.train --config=configs/bounded/quickstart.py --workdir=runs/bounded_quickstart
Expected: a student close to its teacher with a fraction of its multiply-accumulates; no figures measured yet.
Hardware: 2 CPU cores. Time: not measured yet; `:small` is a few steps.
"""

from emokd import config as configuration
from emokd import defaults
from emokd.config import check_argument
from emokd.recipes import bounded


def get_config(arg=""):
    """The configuration; `small` is the same job in short."""
    check_argument(arg)
    small = arg == "small"
    teacher = "configs/teachers/painter.py" + (":small" if small else "")
    config = bounded.default_config()
    config.batch_size = 64
    config.data = configuration.load(teacher).data
    config.teachers.painter = defaults.teacher(train=teacher)
    config.student = defaults.network("basic_cnn", size=48, width=8)
    config.phases.distill = defaults.phase(**({"steps": 10} if small else {"epochs": 10}), learning_rate=3e-3)
    config.evaluation = defaults.every(percent=50)
    return config
