"""EmoNet taught to light students on AffectNet: eight expressions, valence and arousal.

Papers: EmoNet (Toisoul et al., 2021) is the teacher, at 256 pixels; students at 224. The published figures are EmoNet
75% and a MobileNetV2 student 73.36% on EmoNet's cleaned test list; on the raw list both are far lower, so always say
which was used. Temperature, alpha, margin and all schedules are ours.
Data: AffectNet, 2017 release, by agreement with its authors; `--config.data.source=affectnet_2021` for the other one.
Weights: EmoNet's `emonet_8.pth` (CC BY-NC-ND, theirs), torchvision's ImageNet MobileNetV2.

Arguments: the student, `mobilenet` (the default), `efficientformer_l1`, `efficientformer_l3` or `efficientformer_l7`;
`small` is a MobileNetV2 of width 0.35 on small pictures in a few steps.

Command:  python -m emokd.train --config=configs/bounded/affectnet.py --workdir=runs/affectnet
          --config.teachers.emonet.checkpoint=emonet_8.pth
Expected: not measured; we have neither the pictures nor EmoNet's weights.
Hardware: a GPU. Time: not measured.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import bounded

STUDENTS = ("mobilenet", "efficientformer_l1", "efficientformer_l3", "efficientformer_l7")


def get_config(arg=""):
    """The configuration of one student."""
    check_argument(arg, (*STUDENTS, "small"))
    small = arg == "small"
    config = bounded.default_config()
    config.batch_size = 8 if small else 128
    config.data.source = "affectnet"
    config.data.options = {"cleaning": "emonet", "crop": "landmarks"}
    config.data.canvas = 64 if small else 256
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1)})
    config.teachers.emonet = defaults.teacher("emonet", checkpoint="weights/emonet_8.pth", size=64 if small else 256)
    config.mirror = True
    if small:
        config.student = defaults.network("mobilenet_v2", size=64, width=0.35)
    elif arg.startswith("efficientformer"):
        config.student = defaults.network(arg, size=224)
    else:
        config.student = defaults.network("mobilenet_v2", size=224)
        config.student.init = "weights/mobilenet_v2-b0353104.pth"
    config.phases.distill = defaults.phase(**({"steps": 3} if small else {"epochs": 15}), learning_rate=1e-3)
    return config
