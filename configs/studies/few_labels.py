"""Few labels, many faces: does a teacher help who never saw the labels? FER+, a small basic CNN, five label subsets.

A seed draws the labelled faces, the initial weights and the order. A student of a teacher imitates it on all training
faces without their labels, then learns from the labelled ones. Labels alone take as many optimiser steps.

Commands (with EMOKD_DATA set; the argument is the number of labels, 200, 500 or 2000; `headline` is one seed of labels
alone and of the teacher `half`, with 500 labels; `small` is one seed in a few steps without caches, three minutes):
  python -m emokd.train --config=configs/teachers/ferplus.py --config.data.options.protocol=majority
    --config.data.labels.limit=0.5 --config.data.labels.seed=101 --config.phases.train.duration_epochs=6
    --config.student.options.width=24 --workdir=runs/teachers/ferplus_half
  python -m emokd.cache_teachers --config=configs/studies/few_labels_job.py:TEACHER
    --output=runs/cache/few_labels_TEACHER
  python -m emokd.study --config=configs/studies/few_labels.py:500 --workdir=runs/studies/few_labels_500
Expected: docs/results/few_labels.md. Hardware: one CPU core. Time: caches 5 to 15 minutes each; 5 minutes a run.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

JOB = "configs/studies/few_labels_job.py"
IMITATIONS = ("half", "soft_targets", "imagenet", "xception", "identity")


def get_config(arg="500"):
    """The study for one number of labels."""
    check_argument(arg, ("200", "500", "2000", "headline", "small"))
    small, headline = arg == "small", arg == "headline"
    limit = {"data.labels.limit": 500 if small or headline else int(arg)}
    variants = {"labels": {"base": f"{JOB}:labels", **limit}}
    for name in () if small else IMITATIONS[:1] if headline else IMITATIONS:
        variants[f"imitate_{name}"] = {"base": f"{JOB}:{name}", **limit}
        variants[name] = {"base": f"{JOB}:after", **limit, "student.init": f"{{run:imitate_{name}}}/student"}
    if small:
        variants["labels"]["phases.finetune.duration_steps"] = 6
        variants["imitate_imagenet"] = {"base": f"{JOB}:small", **limit}
        variants["imagenet"] = {
            "base": f"{JOB}:after",
            "student.init": "{run:imitate_imagenet}/student",
            "phases.classify.duration_steps": 3,
            "phases.finetune.duration_steps": 3,
        }
    return define(
        title=f"FER+ with {limit['data.labels.limit']} labels, a basic CNN of width 16 at 32 pixels",
        base=f"{JOB}:labels",
        variants=variants,
        seeds=(0,) if small or headline else (0, 1, 2, 3, 4),
        per_seed=("seed", "data.labels.seed"),
        metric="student.expression.accuracy",
        also=("student.expression.balanced_accuracy", "student.expression.macro_f1"),
        baseline="labels",
        support=tuple(name for name in variants if name.startswith("imitate_")),
    )
