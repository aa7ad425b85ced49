"""A teacher of seven expressions, valence and arousal: DiffusionFER, on the ImageNet EfficientNet-Lite0.

Data: DiffusionFER (synthetic faces), no prescribed split: five folds, `--config.data.split.fold` is the test fold.
Weights: the ImageNet EfficientNet-Lite0 (weights/efficientnet-lite0-57934424.pth under EMOKD_DATA).

Command:  python -m emokd.train --config=configs/teachers/diffusionfer.py --workdir=runs/teachers/diffusionfer/fold0
Expected: accuracy about .71 over the five folds (docs/results/bounded_diffusionfer.md).
Hardware: 2 CPU cores. Time: not measured on an idle machine; `:small` is a few steps of
a basic CNN from nothing.
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
    config.data.source = "diffusionfer"
    config.data.canvas = 96
    config.data.in_memory = True
    config.data.split.update({"folds": 5, "validation": 0.1})
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1)})
    config.targets = ("expression", "valence_arousal")
    config.affect_loss = "smooth_l1"
    config.backbone_multiplier = 0.3
    if small:
        config.student = defaults.network("basic_cnn", size=64, width=8)
    else:
        config.student = defaults.network("efficientnet_lite0", size=64)
        config.student.init = "weights/efficientnet-lite0-57934424.pth"
    config.phases.train = defaults.phase(**({"steps": 3} if small else {"epochs": 12}), learning_rate=2e-3)
    return config
