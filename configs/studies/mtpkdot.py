"""What each part of MT-PKDOT is worth on feature tables: the papers' order of methods, and their switches.

Five seeds on each of five folds. The students of one seed and fold have the same teachers: `teachers` trains them,
`aligned` goes on from there, and the variants begin with one or the other (`start_from`). The table has the teachers'
scores too: each modality alone, and the joint one.

Arguments: `ravdess` (actor-disjoint folds), `vreed` (folds disjoint in people, as far as these can be told apart),
`vreed_trials` (folds of trials), `small` (`ravdess` in a few steps, two methods, one seed).

Command:  python -m emokd.study --config=configs/studies/mtpkdot.py:ravdess --workdir=runs/studies/mtpkdot_ravdess
Expected: docs/results/mtpkdot.md: no method measurably above the student without privilege.
Hardware: one CPU core. Time: 4 to 20 seconds a run (median 9) beside another study, about an hour for 375 runs;
VREED's, beside more work, an hour and a half.
"""

from emokd.configuration.config import check_argument
from emokd.studies.plan import define

TITLES = {
    "ravdess": "MT-PKDOT on RAVDESS's features",
    "vreed": "MT-PKDOT on VREED's features",
    "vreed_trials": "MT-PKDOT on VREED's features, folds of trials",
}

# The other students begin with encoders that were taught for twelve epochs, and learn for eight more.
LONGER = {"phases.student.duration_epochs": 20.0}
SUPPORT = ("teachers", "aligned")
SMALL = (*SUPPORT, "no_privilege", "mtpkdot")


def get_config(arg="ravdess"):
    """The study of one data set."""
    check_argument(arg, (*TITLES, "small"))
    data = "vreed" if arg == "vreed_trials" else "ravdess" if arg == "small" else arg
    no_teachers = {f"phases.{name}.enabled": False for name in ("teach", "joint", "hallucinate", "align")}
    joint = {"start_from": "{run:teachers}", "pool": "joint", "objective.centroid": 0.0, "phases.align.enabled": False}
    aligned = {"start_from": "{run:aligned}"}
    longer = {} if arg == "small" else LONGER
    no_student = {"phases.student.enabled": False}
    variants = {
        "teachers": {"phases.align.enabled": False, **no_student},
        "aligned": {"start_from": "{run:teachers}", **no_student},
        "no_privilege": {**no_teachers, "objective.task": 1.0, **longer},
        "pkd": {**joint, "objective.task": 1.0, "objective.transport": 0.0, "objective.features": 0.6},
        "pkdot": {**joint, "objective.task": 1.0, "objective.transport": 0.6},
        "mtpkdot": aligned,
        "no_alignment": {"start_from": "{run:teachers}", "phases.align.enabled": False},
        "no_centroid": {**aligned, "objective.centroid": 0.0},
        "joint_teacher_alone": {**aligned, "pool": "joint"},
        "no_hallucination": {"phases.hallucinate.enabled": False},
        "anchors_most": {**aligned, "structure.anchors": "most"},
        "anchors_all": {**aligned, "structure.anchors": "all"},
        "geomloss": {**aligned, "structure.solver": "geomloss"},
        "uniform": {**aligned, "weighting": ({"name": "uniform"},)},
        "per_sample": {**aligned, "weighting": ({"name": "most_confident", "per": "sample"},)},
    }
    if arg == "vreed_trials":
        variants = {name: {**changes, "data.split.by_group": False} for name, changes in variants.items()}
    return define(
        title=TITLES.get(arg, TITLES["ravdess"]),
        base=f"configs/mtpkdot/{data}.py" + (":small" if arg == "small" else ""),
        variants={name: variants[name] for name in (SMALL if arg == "small" else variants)},
        seeds=(0,) if arg == "small" else (0, 1, 2, 3, 4),
        folds=(0,) if arg == "small" else (0, 1, 2, 3, 4),
        per_fold=("data.split.fold" if data == "vreed" else "data.options.fold",),
        metric="student.expression.accuracy",
        also=("student.expression.macro_f1",),
        baseline=("no_privilege", "mtpkdot"),
        support=SUPPORT,
    )
