"""One run of the study integers.py: a narrow MobileNetV2 on the majority label of FER+, in floating point.

Argument: none, or `small`: a basic CNN for three steps.

Command:  python -m emokd.train --config=configs/studies/integers_job.py --workdir=runs/integers_job
Expected: docs/results/integers.md. Hardware: 2 CPU cores. Time: see there.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import supervised


def get_config(arg=""):
    """The job."""
    check_argument(arg)
    small = arg == "small"
    config = supervised.default_config()
    config.batch_size = 128
    config.data.source = "ferplus"
    config.data.options = {"protocol": "majority"}
    config.data.canvas = 64
    config.data.in_memory = not small
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1), "saturation": 0.0})
    config.student = defaults.network("mobilenet_v2", size=64, width=0.35)
    if small:
        config.student = defaults.network("basic_cnn", size=32, width=4)
    config.phases.train = defaults.phase(**({"steps": 3} if small else {"epochs": 8}), learning_rate=4e-3)
    return config
