"""SMKD on your own pictures: a folder of class folders, teachers from files, a basic CNN.

Paper: Cladiere et al., 2025 (see configs/smkd/fi.py). Point it at PICTURES/CLASS/*.jpg (splits are made by hash, or
taken from PICTURES/{train,validation,test}/CLASS/*.jpg; if people or videos have several pictures, name them in a
manifest's column `group`, which a folder has not), and at the teachers that you have: here the two ImageNet
networks whose files torchvision and its friends publish. Add others with a line each in a copy of this file.

Command:  python -m emokd.train --config=configs/smkd/folder.py --config.data.dir=PICTURES --workdir=runs/mine
          --config.teachers.mobilenet.checkpoint=mobilenet_v2-b0353104.pth
          --config.teachers.lite0.checkpoint=efficientnet-lite0-57934424.pth
Classes of very different sizes: --config.class_weights=balanced, --config.select.metric=expression/balanced_accuracy.
Expected: depends on the pictures.
Hardware: any; `:small` reads the FI sample with three steps per phase, two minutes on 2 CPU cores.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import smkd


def get_config(arg=""):
    """The configuration; `small` is a short version of it, on the FI sample."""
    check_argument(arg)
    small = arg == "small"
    config = smkd.default_config()
    config.batch_size = 32
    config.data.source = "fi_subset" if small else "image_folder"
    config.data.canvas = 80 if small else 192
    size = 64 if small else 160
    config.teachers.mobilenet = defaults.teacher(
        "mobilenet_v2", checkpoint="weights/mobilenet_v2-b0353104.pth", size=size
    )
    config.teachers.lite0 = defaults.teacher(
        "efficientnet_lite0", checkpoint="weights/efficientnet-lite0-57934424.pth", size=size
    )
    config.student = defaults.network("basic_cnn", size=64 if small else 128)
    if small:
        for name in config.phases:
            config.phases[name] = defaults.phase(steps=3, learning_rate=1e-3)
    return config
