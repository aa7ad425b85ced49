"""What soft targets and the teacher bound are worth on DiffusionFER: four losses, five seeds that are the five folds.

The teacher of each fold is trained beforehand on the same training split. Every variant has the same optimiser steps.

Commands (with EMOKD_DATA set; the argument is the student, `mobilenet` from ImageNet weights or `light` from nothing;
`small` is a basic CNN in three steps, two losses, one seed, with the teacher trained by the run, 66 s):
  for fold in 0 1 2 3 4; do python -m emokd.train --config=configs/teachers/diffusionfer.py
      --config.data.split.fold=$fold --workdir=runs/teachers/diffusionfer/fold$fold; done
  python -m emokd.study --config=configs/studies/bounded_diffusionfer.py:mobilenet
      --workdir=runs/studies/bounded_diffusionfer_mobilenet
Expected: docs/results/bounded_diffusionfer.md: students above their teacher, no loss measurably above the labels alone.
Hardware: 2 CPU cores. Time: about an hour for `mobilenet` on one core, teachers not counted.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

LENGTH = {
    "teachers.faces.train": "",
    "teachers.faces.checkpoint": "runs/teachers/diffusionfer/fold{fold}/student",
    "phases.distill.duration_epochs": 8.0,
    "evaluation.every_epochs": 2.0,
}


def get_config(arg="mobilenet"):
    """The study of one student."""
    check_argument(arg, ("mobilenet", "light", "small"))
    small = arg == "small"
    length = {} if small else LENGTH
    no_soft_targets, no_bound = {"soft_targets.alpha": 0.0}, {"bound.nu": 0.0}
    variants = {
        "labels": {**length, **no_soft_targets, **no_bound},
        "soft_targets": {**length, **no_bound},
        "bound": {**length, **no_soft_targets},
        "both": length,
    }
    return define(
        title=f"Teacher-bounded distillation on DiffusionFER, student {arg}",
        base=f"configs/bounded/diffusionfer.py:{arg}",
        variants={name: changes for name, changes in variants.items() if not small or name in ("labels", "both")},
        seeds=(0,) if small else (0, 1, 2, 3, 4),
        per_seed=("seed", "data.split.fold"),
        metric="student.expression.accuracy",
        also=(
            "student.expression.macro_f1",
            "student.valence_arousal.valence.ccc",
            "student.valence_arousal.valence.pcc",
            "student.valence_arousal.valence.rmse",
            "student.valence_arousal.valence.sagr",
            "student.valence_arousal.arousal.ccc",
            "student.valence_arousal.arousal.pcc",
            "student.valence_arousal.arousal.rmse",
            "student.valence_arousal.arousal.sagr",
        ),
        baseline="labels",
    )
