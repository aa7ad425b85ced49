"""The affect teacher: valence and arousal of OASIS photographs, on the ImageNet MobileNetV2.

Data: OASIS (Kurdi, Lozano, Banaji 2017), 900 photographs, mean ratings mapped from 1..7 to [-1, 1].
Weights: torchvision's ImageNet MobileNetV2 (weights/mobilenet_v2-b0353104.pth under EMOKD_DATA).

Command:  python -m emokd.train --config=configs/teachers/oasis.py --workdir=runs/teachers/oasis
Expected: see docs/results/teachers.md.
Hardware: 2 CPU cores. Time: 8 minutes on one of them; `:small` is a basic CNN from nothing, in a few steps.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import supervised


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    small = arg == "small"
    config = supervised.default_config()
    config.batch_size = 32
    config.data.source = "oasis"
    config.data.canvas = 48 if small else 144
    config.data.in_memory = True
    config.data.augment.update({"crop_area": (0.6, 1.0), "brightness": 0.1, "contrast": 0.1, "saturation": 0.1})
    config.targets = ("valence_arousal",)
    config.affect_loss = "ccc"
    if small:
        config.student = defaults.network("basic_cnn", size=48, width=8)
    else:
        config.student = defaults.network("mobilenet_v2", size=128)
        config.student.init = "weights/mobilenet_v2-b0353104.pth"
    config.select.metric = "valence_arousal/mean_ccc"
    config.backbone_multiplier = 0.1
    config.phases.head = defaults.phase(**({"steps": 3} if small else {"epochs": 4}), learning_rate=5e-3)
    config.phases.train = defaults.phase(**({"steps": 5} if small else {"epochs": 12}), learning_rate=2e-3)
    return config
