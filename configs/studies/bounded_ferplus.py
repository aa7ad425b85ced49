"""Soft targets against votes on FER+: a basic CNN learns from the votes, from a larger network, or from both.

The teacher is trained once beforehand on the training split; answers for two views of each face are cached. Five seeds.

Commands (with EMOKD_DATA set; `small` is three steps with a small teacher trained by the run, two variants, one seed,
110 s):
  python -m emokd.train --config=configs/teachers/ferplus_lite0.py --workdir=runs/teachers/ferplus_lite0
  python -m emokd.cache_teachers --config=configs/studies/bounded_ferplus_job.py --output=runs/cache/ferplus
  python -m emokd.study --config=configs/studies/bounded_ferplus.py --workdir=runs/studies/bounded_ferplus
Expected: docs/results/bounded_ferplus.md: accuracy .715 with votes, .716 with both, .707 with the teacher alone.
Hardware: one CPU core. Time: 21 minutes for the teacher, 4 for the cache, 5 for each of 15 runs.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

SMALL = ("votes", "both")


def get_config(arg=""):
    """The study."""
    check_argument(arg)
    small = arg == "small"
    variants = {
        "votes": {"soft_targets.alpha": 0.0},
        "both": {"soft_targets.alpha": 0.5},
        "soft_targets": {"soft_targets.alpha": 1.0},
    }
    if small:  # a teacher that compiles quickly
        for changes in variants.values():
            changes["teachers.faces.train"] = "configs/teachers/ferplus.py:small"
    return define(
        title="Soft targets against votes on FER+, a basic CNN of width 20",
        base="configs/bounded/ferplus.py:small" if small else "configs/studies/bounded_ferplus_job.py",
        variants={name: variants[name] for name in (SMALL if small else variants)},
        seeds=(0,) if small else (0, 1, 2, 3, 4),
        metric="student.expression.accuracy",
        also=("student.expression.balanced_accuracy", "student.expression.macro_f1", "student.expression.ece"),
        baseline="votes",
    )
