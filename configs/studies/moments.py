"""Do Adam's moments that carry over from phase to phase cost SMKD's student anything? FI's sample, five folds.

`carried` keeps the moments of groups that learn in several phases, `fresh` begins every phase with moments of zero,
`separate` does the last phase in a run of its own, which has fresh moments too. `labels` are labels alone, in as many
steps.

Commands (with EMOKD_DATA set; `small` is three steps a phase, one fold, two variants, four minutes):
  python -m emokd.cache_teachers --config=configs/studies/moments_job.py --output=runs/cache/moments
  python -m emokd.study --config=configs/studies/moments.py --workdir=runs/studies/moments
Expected: docs/results/moments.md. Hardware: one CPU core. Time: two minutes a run, 25 runs.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

JOB = "configs/studies/moments_job.py"
STEPS = 48 + 16 + 48


def get_config(arg=""):
    """The study."""
    check_argument(arg)
    small = arg == "small"
    variants = {
        "labels": {
            "phases.probe.enabled": False,
            "phases.distill.enabled": False,
            "phases.classify.enabled": False,
            "phases.finetune.duration_steps": 3 if small else STEPS,
            "phases.finetune.learning_rate": 1e-3,
        },
        "carried": {},
        "fresh": {"optimizer.fresh_moments": True},
        "until_classify": {"phases.finetune.enabled": False},
        "separate": {"start_from": "{run:until_classify}"},
    }
    if small:
        variants = {name: variants[name] for name in ("carried", "fresh")}
    return define(
        title="Adam's moments from phase to phase: SMKD on the FI sample, MobileNetV2 from ImageNet weights",
        base=f"{JOB}:small" if small else JOB,
        variants=variants,
        seeds=(0,) if small else (0, 1, 2, 3, 4),
        per_seed=("seed", "data.split.fold"),
        metric="student.expression.accuracy",
        baseline="carried",
        support=() if small else ("until_classify",),
    )
