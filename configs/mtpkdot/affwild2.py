"""MT-PKDOT on Aff-Wild2: valence and arousal from the face alone, taught by face and sound together.

Papers: PKDOT and MT-PKDOT (docs/mtpkdot.md). Data: Aff-Wild2 in the layout of the ABAW challenges (docs/data.md), by
agreement with its authors. The set's validation videos are scored; the epoch is chosen on videos of the training set.
Without expressions the most confident teacher is the one of least squared error. [ours]

Arguments: `small` is a narrow network on short sub-sequences, a few steps.

Command:  python -m emokd.train --config=configs/mtpkdot/affwild2.py --workdir=runs/affwild2
Expected: not measured; we do not have the data. Hardware: a GPU. Time: not measured.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import mtpkdot


def get_config(arg=""):
    """The configuration."""
    check_argument(arg)
    small = arg == "small"
    config = mtpkdot.default_config()
    config.batch_size = 8 if small else 64
    config.data.source = "affwild2"
    config.data.options = {"length": 2 if small else 8, "size": 32 if small else 112}
    config.data.split.update({"by_group": True})
    config.data.augment.update({"crop_area": (0.8, 1.0), "aspect": (0.9, 1.1)})
    config.modalities.face = defaults.modality("video", "r3d18", size=16 if small else 112)
    config.modalities.voice = defaults.modality(
        "audio", "spectrogram_resnet18", privileged=True, standardize="all", transform=False
    )
    if small:
        config.modalities.face.options = {"width": 4}
        config.modalities.voice = defaults.modality(
            "audio", "conv1d", privileged=True, standardize="all", width=4, depth=3
        )
        config.width, config.adapter_width, config.structure.k = 16, 8, 3
        config.hallucination.options = {"encoder": (16,), "decoder": (16,)}
    config.select.metric = "valence_arousal/mean_ccc"
    epochs = (lambda n: {"steps": 2}) if small else (lambda n: {"epochs": n})
    for name, length in (("teach", 10), ("joint", 5), ("hallucinate", 5), ("align", 5), ("student", 10)):
        config.phases[name] = defaults.phase(**epochs(length), learning_rate=5e-3 if name == "align" else 5e-4)
    return config
