"""MT-PKDOT on VREED's features: the student sees the eyes' movements, its teachers also the heart and the skin.

Papers: PKDOT and MT-PKDOT (docs/mtpkdot.md), which did not use this set. Data: VREED (Tabbaa et al. 2021), 312 trials
in virtual reality, four quadrants of valence and arousal. The features name no subjects; the five folds are disjoint in
blocks of rows that are taken for one person each (docs/data.md). `--config.data.split.by_group=False`: folds of trials,
with each person in training and in test.
Privileged: electrocardiogram (ECG) and skin conductance (GSR).

Command:  python -m emokd.train --config=configs/mtpkdot/vreed.py --workdir=runs/mtpkdot_vreed
Expected: accuracy .41 over five folds (docs/results/mtpkdot.md). Hardware: one CPU core. Time: about 60 seconds.
"""

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.config import check_argument


def get_config(arg=""):
    """The configuration; `small` is the same job in a few steps."""
    check_argument(arg)
    with configuration.load("configs/mtpkdot/ravdess.py" + (f":{arg}" if arg else "")).unlocked() as config:
        config.batch_size = 64
        config.data.source = "vreed"
        config.data.options = {}
        config.data.split.update({"folds": 5, "by_group": True})
        for name in list(config.modalities):
            del config.modalities[name]
        for name, privileged in (("eye", False), ("ecg", True), ("gsr", True)):
            config.modalities[name] = defaults.modality(
                f"features/{name}", "mlp", privileged=privileged, widths=(64, 64)
            )
        config.width, config.adapter_width = 64, 32
        config.hallucination.options = {"encoder": (64, 32), "decoder": (64,)}
    return config
