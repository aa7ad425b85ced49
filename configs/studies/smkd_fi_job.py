"""One run of the study smkd_fi.py: SMKD on the FI sample with cached teachers, and steps few enough to repeat it often.

Arguments: `basic` (a basic CNN from nothing, 32 pixels) or `mobilenet` (MobileNetV2 from ImageNet weights, 64 pixels),
each also `_with_extra` (OASIS as unlabelled pictures for imitation); `small` is `configs/smkd/fi.py:small` with one
of its teachers.

Command:  python -m emokd.train --config=configs/studies/smkd_fi_job.py:basic --workdir=runs/smkd_fi_basic
Expected: docs/results/smkd_fi.md. Hardware: 2 CPU cores. Time: one to two minutes with cached teachers.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument


def get_config(arg="basic"):
    """The job of one student."""
    students = ("basic", "mobilenet")
    check_argument(arg, (*students, *(f"{student}_with_extra" for student in students), "small"))
    if arg == "small":
        with configuration.load("configs/smkd/fi.py:small").unlocked() as config:
            del config.teachers.affect, config.teachers.faces, config.teachers.lite0
        return config
    student = arg.removesuffix("_with_extra")
    with configuration.load("configs/smkd/fi.py:subset").unlocked() as config:
        config.data.canvas = 160
        config.data.views = 8
        config.cache.dir = "runs/cache/fi"
        config.checkpoint.keep = 1
        for name, folder in (("affect", "oasis"), ("faces", "ferplus")):
            config.teachers[name].train = ""
            config.teachers[name].checkpoint = f"runs/teachers/{folder}/student"
        if student == "mobilenet":
            config.student = defaults.network("mobilenet_v2", size=64)
            config.student.init = "weights/mobilenet_v2-b0353104.pth"
            lengths = (48, 16, 48)
        else:
            config.student = defaults.network("basic_cnn", size=32)
            lengths = (96, 32, 64)
        config.phases.probe = defaults.phase(steps=64, learning_rate=1e-3)
        config.phases.distill = defaults.phase(steps=lengths[0], learning_rate=2e-3)
        config.phases.classify = defaults.phase(steps=lengths[1], learning_rate=2e-3)
        config.phases.finetune = defaults.phase(steps=lengths[2], learning_rate=5e-4)
        if arg.endswith("_with_extra"):
            config.data.extra = {"source": "oasis", "dir": "", "options": {}}
    return config
