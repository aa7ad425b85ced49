"""A stronger teacher of FER+'s eight expressions: the ImageNet EfficientNet-Lite0 on the votes.

Data: FER2013 with the FER+ votes (Barsoum et al. 2016), protocol "cross_entropy": the votes'
distribution is the target.
Weights: the ImageNet EfficientNet-Lite0 (weights/efficientnet-lite0-57934424.pth under EMOKD_DATA).

Command:  python -m emokd.train --config=configs/teachers/ferplus_lite0.py --workdir=runs/teachers/ferplus_lite0
Expected: accuracy .80, macro F1 .55 on the test split (one run). Hardware: one CPU core. Time: 21 minutes.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    small = arg == "small"
    with configuration.load("configs/teachers/ferplus.py" + (":small" if small else "")).unlocked() as config:
        config.batch_size = 64
        config.data.in_memory = not small
        config.student = defaults.network("efficientnet_lite0", size=64)
        config.student.init = "weights/efficientnet-lite0-57934424.pth"
        config.backbone_multiplier = 0.3
        config.phases.train = defaults.phase(**({"steps": 3} if small else {"epochs": 3}), learning_rate=2e-3)
    return config
