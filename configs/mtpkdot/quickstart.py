"""MT-PKDOT on painted faces: physiology and sound are there in training only.

Papers: PKDOT and MT-PKDOT (docs/mtpkdot.md). The data is synthetic (the embedded painter with its traces and sounds):
it shows how the method runs and proves nothing about the papers.

Command:  python -m emokd.train --config=configs/mtpkdot/quickstart.py --workdir=runs/mtpkdot_quickstart
Expected: accuracy .49, the joint teacher .64 and the face alone .40; mean CCC .59 (one run of 2026-11-25 at commit
34e3121). Hardware: 2 CPU cores. Time: 2 min 20 s, then without
`config.baseline`; `:small`, a few steps, 111 s with it (2026-11-29).
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import mtpkdot


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    small = arg == "small"
    config = mtpkdot.default_config()
    config.batch_size = 64
    config.data.source = "painter"
    config.data.options = {
        "size": 48,
        "train": 256 if small else 1024,
        "validation": 64 if small else 256,
        "test": 64 if small else 512,
        "seed": 0,
        "inputs": ("image", "physiology", "audio"),
    }
    config.data.split.by_group = False  # every split has all 16 people, so the log names them
    config.data.canvas = 48
    config.data.in_memory = True
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1)})
    config.modalities.face = defaults.modality("image", "basic_cnn", size=48, width=12)
    config.modalities.physiology = defaults.modality(
        "physiology", "conv1d", privileged=True, width=16, depth=2 if small else 4
    )
    config.modalities.sound = defaults.modality(
        "audio", "conv1d", privileged=True, standardize="all", width=32, depth=2
    )
    config.width = 64
    config.adapter_width = 32
    config.hallucination.options = {"encoder": (128, 64), "decoder": (128,)}
    config.structure.k = 20

    def phase(epochs, learning_rate):
        return defaults.phase(**({"steps": 4} if small else {"epochs": epochs}), learning_rate=learning_rate)

    config.phases.teach = phase(8, 2e-3)
    config.phases.joint = phase(4, 2e-3)
    config.phases.hallucinate = phase(4, 1e-3)
    config.phases.align = phase(4, 5e-3)
    config.phases.student = phase(8, 1e-3)
    config.evaluation = defaults.every(percent=50)
    config.baseline.enabled = True
    return config
