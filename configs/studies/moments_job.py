"""One run of the study moments.py: SMKD on the FI sample, a MobileNetV2 from ImageNet weights, two cached teachers.

Arguments: none, or `small`: three steps a phase, live teachers.

Command:  python -m emokd.train --config=configs/studies/moments_job.py --workdir=runs/moments
Expected: docs/results/moments.md. Hardware: one CPU core. Time: two minutes with cached teachers.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument


def get_config(arg=""):
    """The job."""
    check_argument(arg)
    small = arg == "small"
    with configuration.load("configs/studies/smkd_fi_job.py:mobilenet").unlocked() as config:
        del config.teachers.affect, config.teachers.faces
        config.cache.dir = "" if small else "runs/cache/moments"
        if small:
            for name in config.phases:
                config.phases[name] = defaults.phase(steps=3, learning_rate=1e-3)
    return config
