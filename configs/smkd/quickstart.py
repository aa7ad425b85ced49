"""SMKD on painted faces: three small teachers of different skills teach a basic CNN.

Paper: Cladiere et al., Visual emotion analysis using skill-based multi-teacher knowledge distillation, 2025.
The data is synthetic (the embedded painter): it shows how the whole method runs and proves nothing about the paper.

Command:  python -m emokd.train --config=configs/smkd/quickstart.py --workdir=runs/quickstart
Expected: the student above the expression teacher, which far outweighs the other two, and below the same network on
labels alone (accuracy .510, .452 and .567 in one run of 2026-11-29 at commit 8616fae).
Hardware: 2 CPU cores. Time: 3 min 13 s there with installation, beside another job, with everything to compile.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import smkd


def get_config(arg=""):
    """The configuration; `small` is the same job with fewer pictures and steps."""
    check_argument(arg)
    small = arg == "small"
    config = smkd.default_config()
    config.batch_size = 64
    config.data.source = "painter"
    config.data.options = {
        "size": 48,
        "train": 384 if small else 1280,
        "validation": 128 if small else 384,
        "test": 128 if small else 1024,
        "seed": 0,
    }
    config.data.split.by_group = False  # every split has all 16 people, so the log names them
    config.data.canvas = 48
    config.data.in_memory = True
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1)})
    config.student = defaults.network("basic_cnn", size=48, width=20)
    for skill in ("expression", "identity", "scene"):
        config.teachers[skill] = defaults.teacher("basic_cnn", task=skill, size=48, width=20)

    def phase(epochs, learning_rate):
        length = {"steps": 5} if small else {"epochs": epochs}
        return defaults.phase(**length, learning_rate=learning_rate)

    config.phases.teach = phase(6, 3e-3)
    config.phases.probe = phase(3, 1e-2)
    config.phases.distill = phase(6, 3e-3)
    config.phases.classify = phase(3, 5e-3)
    config.phases.finetune = phase(4, 1e-3)
    config.evaluation = defaults.every(percent=50)
    config.baseline.enabled = True
    return config
