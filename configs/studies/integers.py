"""What do integers cost a student that learns to compute in them, and one that does not? FER+, MobileNetV2 0.35 at 64.

`float` learns in floating point. `longer` and `integers` begin with it and learn on for the same steps and schedule,
`longer` in floating point and `integers` in simulated integers. The table of the study has the accuracy of `longer` in
floating point and of `integers` in simulation; the second command exports both to int8 and scores the files.

Commands (with EMOKD_DATA set; `small` is one seed in three steps):
  python -m emokd.study --config=configs/studies/integers.py --workdir=runs/studies/integers
  python benchmarks/integers.py --study=runs/studies/integers
Expected: docs/results/integers.md. Hardware: 2 CPU cores. Time: see there.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

JOB = "configs/studies/integers_job.py"


def get_config(arg=""):
    """The study."""
    check_argument(arg)
    small = arg == "small"
    further = {
        "start_from": "{run:float}",
        **({"phases.train.duration_steps": 3} if small else {"phases.train.duration_epochs": 1.0}),
        "phases.train.learning_rate": 4e-4,
    }
    return define(
        title="Integers: FER+ by majority, MobileNetV2 0.35 at 64 pixels",
        base=f"{JOB}:small" if small else JOB,
        variants={"float": {}, "longer": further, "integers": {**further, "student.quantized": True}},
        seeds=(0,) if small else (0, 1, 2, 3, 4),
        metric="student.expression.accuracy",
        also=("student.expression.balanced_accuracy",),
        baseline="longer",
        support=("float",),
    )
