"""Teacher-bounded distillation on painted faces: a basic CNN teaches a narrower one.

Loss: soft targets and the teacher-bounded regression loss (emokd/recipes/bounded.py). The teacher is trained by this
run, with configs/teachers/painter.py. The data is synthetic (the embedded painter): it shows how the method runs and
proves nothing about the paper.

Command:  python -m emokd.train --config=configs/bounded/quickstart.py --workdir=runs/bounded_quickstart
Expected: accuracy .48 with an eighth of the multiply-accumulates of its teacher, which has .67; mean CCC .55 and .78
(one run of 2026-11-25 at commit 34e3121). Hardware: 2 CPU cores. Time: 84 s with the teacher, then
without `config.baseline`; `:small` 23 s with it.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import bounded


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
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
    config.baseline.enabled = True
    return config
