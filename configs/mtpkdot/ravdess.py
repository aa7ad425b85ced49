"""MT-PKDOT on RAVDESS's features: the student sees the face's action units, its teachers also heard the voice.

Papers: PKDOT and MT-PKDOT (docs/mtpkdot.md), which did not use this set. Data: RAVDESS speech clips as features
(Livingstone and Russo 2018; CC BY-NC-SA 4.0), eight emotions, 24 actors; the file's own five folds without shared
actors, `--config.data.options.fold` is the test fold; the validation split has other actors than the training split.
Privileged: MFCC of the sound, and the logits of a wav2vec2 that was trained on the actors of the other folds.

Command:  python -m emokd.train --config=configs/mtpkdot/ravdess.py --workdir=runs/mtpkdot_ravdess
Expected: accuracy .49 over five folds (docs/results/mtpkdot.md). Hardware: one CPU core. Time: about 80 seconds.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import mtpkdot


def get_config(arg=""):
    """The configuration; `small` is the same job in a few steps."""
    check_argument(arg)
    small = arg == "small"
    config = mtpkdot.default_config()
    config.batch_size = 128
    config.data.source = "ravdess_features"
    config.data.options = {"fold": 0}
    config.data.split.update({"validation": 0.1, "by_group": True})
    for name, privileged in (("action_units", False), ("mfcc", True), ("wav2vec2_logits", True)):
        config.modalities[name] = defaults.modality(f"features/{name}", "mlp", privileged=privileged, widths=(128, 64))
    config.width, config.adapter_width = 64, 32
    config.hallucination.options = {"encoder": (128, 64), "decoder": (128,)}
    config.dropout = 0.3
    config.optimizer.weight_decay = 1e-2
    epochs = (lambda n: {"steps": 3}) if small else (lambda n: {"epochs": n})
    config.phases.teach = defaults.phase(**epochs(12), learning_rate=1e-3)
    config.phases.joint = defaults.phase(**epochs(6), learning_rate=1e-3)
    config.phases.hallucinate = defaults.phase(**epochs(10), learning_rate=1e-3)
    config.phases.align = defaults.phase(**epochs(6), learning_rate=2e-3)
    config.phases.student = defaults.phase(**epochs(8), learning_rate=1e-3)
    config.evaluation = defaults.every(percent=25)
    return config
