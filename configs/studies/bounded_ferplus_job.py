"""One run of the study bounded_ferplus.py: a narrow basic CNN on FER+ for two epochs, its teacher cached.

Command:  python -m emokd.train --config=configs/studies/bounded_ferplus_job.py --workdir=runs/bounded_ferplus_job
Expected: accuracy .716 [.704, .728] (docs/results/bounded_ferplus.md). Hardware: one CPU core. Time: 5 minutes.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument


def get_config(arg=""):
    """The configuration; `small` is the same job in three steps, its teacher trained by the run."""
    check_argument(arg)
    if arg == "small":
        return configuration.load("configs/bounded/ferplus.py:small")
    with configuration.load("configs/bounded/ferplus.py").unlocked() as config:
        config.data.views = 2
        config.cache.dir = "runs/cache/ferplus"
        config.teachers.faces.train = ""
        config.teachers.faces.checkpoint = "runs/teachers/ferplus_lite0/student"
        config.student = defaults.network("basic_cnn", size=48, width=20)
        config.phases.distill = defaults.phase(epochs=2, learning_rate=2e-3)
    return config
