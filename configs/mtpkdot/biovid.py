"""MT-PKDOT on BioVid: pain from the face alone, taught by face and physiology together.

Papers: PKDOT and MT-PKDOT (docs/mtpkdot.md). Data: BioVid part B (Walter et al. 2013), by agreement with its authors,
in the layout of the papers' preparation (docs/data.md); no pain against the strongest (BL1, PA4), or five levels.
Differences from the authors' release, all ours: folds are of subjects, the epoch is chosen on a validation split inside
the training folds, the trace's sampling rate is 512 Hz, and no token attends over the batch.

Arguments: `five` has all five levels; `small` is a narrow network, few frames, a few steps.

Command:  python -m emokd.train --config=configs/mtpkdot/biovid.py --workdir=runs/biovid
Expected: not measured; we do not have the data. Hardware: a GPU. Time: not measured.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import mtpkdot


def get_config(arg=""):
    """The configuration."""
    check_argument(arg, ("five", "small"))
    small = arg == "small"
    config = mtpkdot.default_config()
    config.batch_size = 8 if small else 128
    config.data.source = "biovid"
    config.data.options = {"levels": "five" if arg == "five" else "binary", "segments": 2 if small else 10}
    config.data.split.update({"folds": 5, "validation": 0.1, "by_group": True})
    config.data.augment.update({"crop_area": (0.8, 1.0), "aspect": (0.9, 1.1)})
    config.modalities.face = defaults.modality("video", "r3d18", size=16 if small else 112)
    config.modalities.muscle = defaults.modality("physiology", "spectrogram_resnet18", privileged=True)
    if small:
        config.modalities.face.options = {"width": 4}
        config.modalities.muscle = defaults.modality("physiology", "conv1d", privileged=True, width=4, depth=3)
        config.width, config.adapter_width, config.structure.k = 16, 8, 3
        config.hallucination.options = {"encoder": (16,), "decoder": (16,)}
    epochs = (lambda n: {"steps": 2}) if small else (lambda n: {"epochs": n})
    config.phases.teach = defaults.phase(**epochs(20), learning_rate=5e-4)
    config.phases.joint = defaults.phase(**epochs(10), learning_rate=5e-4)
    config.phases.hallucinate = defaults.phase(**epochs(10), learning_rate=5e-4)
    config.phases.align = defaults.phase(**epochs(10), learning_rate=5e-3)
    config.phases.student = defaults.phase(**epochs(10), learning_rate=5e-4)
    return config
