"""What each part of SMKD is worth on FI's photographs, over five seeds that are the five folds.

Every method has the same number of optimiser steps on the same pictures: "supervised" spends them all on labels, and
where a phase is left out, another that learns from labels has its steps. The teachers' features are cached, so that the
study computes them once: eight views of each picture and the whole one.

Commands (with EMOKD_DATA set; the argument is the student, `basic` from nothing or `mobilenet` from ImageNet weights;
`small` is two methods, one seed, one teacher, 80 s, to see that it works):
  python -m emokd.train --config=configs/teachers/oasis.py --workdir=runs/teachers/oasis
  python -m emokd.train --config=configs/teachers/ferplus.py --workdir=runs/teachers/ferplus
  python -m emokd.cache_teachers --config=configs/studies/smkd_fi_job.py:basic_with_extra --output=runs/cache/fi
  python -m emokd.study --config=configs/studies/smkd_fi.py:basic --workdir=runs/studies/smkd_fi_basic
Expected: docs/results/smkd_fi.md. Students far below their best teachers, no weighting measurably above another.
Hardware: 2 CPU cores. Time: about an hour for each student, if each has a core; teachers and cache half an hour more.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

# Steps of distill, classify and finetune; see smkd_fi_job.py.
STEPS = {"basic": (96, 32, 64), "mobilenet": (48, 16, 48), "small": (3, 3, 3)}
SMALL = ("supervised", "relevance")
# All are compared with labels alone; weightings also with uniform weights, additions and omissions with `relevance`.
BASELINES = {
    "uniform": "supervised",
    **dict.fromkeys(("relevance", "ca_mkd", "most_relevant_alone"), ("supervised", "uniform")),
    **dict.fromkeys(("relevance_and_oasis", "without_classify", "without_finetune"), ("supervised", "relevance")),
}


def get_config(arg="basic"):
    """The study of one student."""
    check_argument(arg, tuple(STEPS))
    base = f"configs/studies/smkd_fi_job.py:{arg}"
    distill, classify, finetune = STEPS[arg]
    relevance = ({"name": "relevance", "temperature": 1.0},)
    variants = {
        "supervised": {
            "phases.distill.enabled": False,
            "phases.classify.enabled": False,
            "phases.finetune.duration_steps": distill + classify + finetune,
            "phases.finetune.learning_rate": 1e-3,
        },
        "uniform": {"weighting": ({"name": "uniform"},)},
        "relevance": {"weighting": relevance},
        "ca_mkd": {"weighting": ({"name": "ca_mkd"},)},
        "most_relevant_alone": {"weighting": ({"name": "most_confident", "per": "sample"},)},
        "relevance_and_oasis": {"base": f"{base}_with_extra", "weighting": relevance},
        "without_classify": {
            "weighting": relevance,
            "phases.classify.enabled": False,
            "phases.finetune.duration_steps": classify + finetune,
        },
        "without_finetune": {
            "weighting": relevance,
            "phases.finetune.enabled": False,
            "phases.classify.duration_steps": classify + finetune,
        },
    }
    return define(
        title=f"SMKD on the FI sample, student {arg}",
        base=base,
        variants={name: variants[name] for name in (SMALL if arg == "small" else variants)},
        seeds=(0,) if arg == "small" else (0, 1, 2, 3, 4),
        per_seed=("seed", "data.split.fold"),
        metric="student.expression.accuracy",
        baseline="supervised" if arg == "small" else BASELINES,
    )
