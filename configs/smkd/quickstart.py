"""SMKD on painted faces: three small teachers of different skills teach a basic CNN.

Paper: Cladiere et al., Visual emotion analysis using skill-based multi-teacher knowledge distillation, 2025.
The data is synthetic (the embedded painter) and proves nothing about the paper; it shows the whole machine at work.

Command:  python -m emokd.train --config=configs/smkd/quickstart.py --workdir=runs/quickstart
Expected: see the README's sample of the scoreboard.
Hardware: 2 CPU cores. Time: under 5 minutes; `:small` under 1 minute.
"""

from emokd import defaults
from emokd.config import check_argument
from emokd.recipes import smkd


def get_config(arg=""):
    check_argument(arg)
    small = arg == "small"
    config = smkd.default_config()
    config.batch_size = 64
    config.data.source = "painter"
    config.data.options = {
        "size": 48,
        "train": 384 if small else 2048,
        "validation": 128 if small else 512,
        "test": 128 if small else 1024,
        "seed": 0,
    }
    config.data.canvas = 48
    config.data.in_memory = True
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1)})
    config.student = defaults.network("basic_cnn", size=48, width=32)
    config.teachers.expression = defaults.teacher("basic_cnn", task="expression", size=48, width=32)
    config.teachers.identity = defaults.teacher("basic_cnn", task="identity", size=48, width=32)
    config.teachers.scene = defaults.teacher("basic_cnn", task="scene", size=48, width=32)
    scale = 0.2 if small else 1.0
    config.phases.teach = defaults.phase(epochs=8 * scale, learning_rate=2e-3)
    config.phases.probe = defaults.phase(epochs=4 * scale, learning_rate=2e-2)
    config.phases.distill = defaults.phase(epochs=8 * scale, learning_rate=2e-3)
    config.phases.classify = defaults.phase(epochs=4 * scale, learning_rate=5e-3)
    config.phases.finetune = defaults.phase(epochs=6 * scale, learning_rate=5e-4)
    return config
