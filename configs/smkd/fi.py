"""SMKD on FI's photographs: eight emotions, four teachers of different skills, a basic CNN.

Paper: Cladiere et al., Visual emotion analysis using skill-based multi-teacher knowledge distillation, Pattern
Analysis and Applications, 2025. Its teachers, networks, distance and schedules are not known to us: ours are in
docs/smkd.md. Data: FI (You et al. 2016), class folders or a table under EMOKD_DATA.

Teachers: objects (ImageNet MobileNetV2), objects (ImageNet EfficientNet-Lite0), affect (trained on OASIS by
configs/teachers/oasis.py) and faces (trained on FER+ by configs/teachers/ferplus.py). The last two are trained by
this run unless their checkpoint is given: --config.teachers.affect.checkpoint=runs/teachers/oasis/student.

Command:  python -m emokd.train --config=configs/smkd/fi.py --workdir=runs/fi
Expected: not measured at this length; docs/results/smkd_fi.md has shorter jobs on the sample.
Hardware: 2 CPU cores for `:subset` (the sample, as $EMOKD_DATA/fi_subset) and `:small` (the sample, smaller pictures,
three steps per phase: 88 s on 2 cores of an AMD EPYC with everything to compile, commit ffb7de3).
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import smkd


def get_config(arg=""):
    """The configuration, for all of FI, its sample, or a short job on the sample."""
    check_argument(arg, ("subset", "small"))
    small = arg == "small"
    config = smkd.default_config()
    config.batch_size = 32
    config.data.source = "fi_subset" if arg else "fi"
    config.data.canvas = 80 if small else 160
    config.data.in_memory = bool(arg)
    config.data.split.update({"folds": 5, "validation": 0.1})
    size = 64 if small else 160
    config.teachers.affect = defaults.teacher(train="configs/teachers/oasis.py" + (":small" if small else ""))
    config.teachers.faces = defaults.teacher(train="configs/teachers/ferplus.py" + (":small" if small else ""))
    config.teachers.mobilenet = defaults.teacher(
        "mobilenet_v2", checkpoint="weights/mobilenet_v2-b0353104.pth", size=size
    )
    config.teachers.lite0 = defaults.teacher(
        "efficientnet_lite0", checkpoint="weights/efficientnet-lite0-57934424.pth", size=size
    )
    config.student = defaults.network("basic_cnn", size=64)
    epochs = (lambda n: {"steps": 3}) if small else (lambda n: {"epochs": n})
    config.phases.probe = defaults.phase(**epochs(6), learning_rate=1e-3)
    config.phases.distill = defaults.phase(**epochs(20), learning_rate=2e-3)
    config.phases.classify = defaults.phase(**epochs(5), learning_rate=2e-3)
    config.phases.finetune = defaults.phase(**epochs(10), learning_rate=3e-4)
    return config
