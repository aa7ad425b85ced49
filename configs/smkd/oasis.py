"""SMKD on OASIS: is a photograph negative, neutral or positive? Three teachers, a basic CNN.

Paper: Cladiere et al., 2025 (see configs/smkd/fi.py); OASIS is our second emotion database, its classes are ours:
thirds of the mean valence, cut where the training split says. The affect teacher is left out: it was trained on OASIS.

Command:  python -m emokd.train --config=configs/smkd/oasis.py --workdir=runs/smkd_oasis
Expected: not measured at this length.
Hardware: 2 CPU cores; `:small` has smaller pictures and three steps per phase (76 s on 2 cores of an AMD EPYC with
everything to compile, commit ffb7de3).
"""

from emokd.configuration import config as configuration
from emokd.configuration.config import check_argument


def get_config(arg=""):
    """The configuration; `small` is a short version of it."""
    check_argument(arg)
    base = "configs/smkd/fi.py:small" if arg == "small" else "configs/smkd/fi.py:subset"
    with configuration.load(base).unlocked() as config:
        config.data.source = "oasis"
        config.data.options = {"task": "terciles"}
        del config.teachers.affect
    return config
