"""Teacher-bounded students on DiffusionFER: seven expressions, valence and arousal of synthetic faces.

Loss: soft targets and the teacher-bounded regression loss (emokd/recipes/bounded.py). The teacher is an
EfficientNet-Lite0 at 64 pixels, trained by configs/teachers/diffusionfer.py on the same split: by this run, unless a
checkpoint is given.

Arguments: the student, `mobilenet` (MobileNetV2 from ImageNet weights; the default), `light` (MobileNetV2 of width
0.35, from nothing) or `efficientformer` (EfficientFormer-L1 from nothing, at 224 pixels); `small` is a basic CNN
under another one, in a few steps.

Command:  python -m emokd.train --config=configs/bounded/diffusionfer.py --workdir=runs/bounded_diffusionfer
Expected: see docs/results/bounded_diffusionfer.md, for eight epochs instead of twenty.
Hardware: 2 CPU cores, a GPU for `efficientformer`. Time: not measured; `:small` 34 s.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import bounded


def get_config(arg=""):
    """The configuration of one student."""
    check_argument(arg, ("mobilenet", "light", "efficientformer", "small"))
    small = arg == "small"
    teacher = "configs/teachers/diffusionfer.py" + (":small" if small else "")
    config = bounded.default_config()
    config.batch_size = 32
    config.data = configuration.load(teacher).data
    config.teachers.faces = defaults.teacher(train=teacher)
    if arg == "efficientformer":
        config.student = defaults.network("efficientformer_l1", size=224)
        config.data.canvas = 224
    elif arg == "light":
        config.student = defaults.network("mobilenet_v2", size=64, width=0.35)
    elif small:
        config.student = defaults.network("basic_cnn", size=64, width=8)
    else:
        config.student = defaults.network("mobilenet_v2", size=64)
        config.student.init = "weights/mobilenet_v2-b0353104.pth"
        config.backbone_multiplier = 0.3
    config.phases.distill = defaults.phase(**({"steps": 3} if small else {"epochs": 20}), learning_rate=2e-3)
    return config
