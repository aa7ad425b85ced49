"""What small jobs on painted faces have in common, for tests of whole runs."""

import ml_collections

from emokd.configuration import defaults

SIZE = 16


def paint(config: ml_collections.ConfigDict, steps: int) -> ml_collections.ConfigDict:
    """Makes a recipe's configuration small: 24 faces of 16 pixels, a student of width 2, `steps` steps per phase."""
    config.batch_size = 8
    config.data.source = "painter"
    config.data.options = {"size": SIZE, "train": 24, "validation": 9, "test": 11, "seed": 0}
    config.data.canvas = SIZE
    config.data.num_threads = 1
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name in config.phases:
        enabled = config.phases[name].enabled
        config.phases[name] = defaults.phase(steps=steps, learning_rate=1e-2, warmup_percent=0.0, enabled=enabled)
    config.evaluation = defaults.every(steps=steps)
    config.log.every_steps = 1
    return config
