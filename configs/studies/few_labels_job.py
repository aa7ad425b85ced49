"""One run of the study few_labels.py: few labelled faces of FER+, and all others without their labels.

Arguments: `labels` (the basic CNN learns from the labels alone), `TEACHER` (it imitates that teacher's features on all
training faces, and stops there), `soft_targets` (it imitates the outputs of the teacher `half` instead) or `after` (it
learns from the labels, beginning with a student of such a run, which `config.student.init` names). TEACHER is
`imagenet` (MobileNetV2, ImageNet), `identity` (face-api's), `half` (our own, trained on the labels of half of FER+'s
training faces) or `xception` (mini-Xception, trained on FER2013). `small` is the imitation of `imagenet` in three
steps, with the teacher computed in the step.

Command:  python -m emokd.train --config=configs/studies/few_labels_job.py:labels --workdir=runs/few_labels
Expected: docs/results/few_labels.md. Hardware: one CPU core. Time: 4 to 6 minutes with cached teachers.
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import bounded, smkd

TEACHERS = {
    "imagenet": {"backbone": "mobilenet_v2", "checkpoint": "weights/mobilenet_v2-b0353104.pth", "size": 64},
    "identity": {
        "backbone": "face_api_identity",
        "checkpoint": "weights/face_api/face_recognition_model-weights_manifest.json",
        "size": 112,
    },
    "half": {"checkpoint": "runs/teachers/ferplus_half/student"},
    "xception": {"backbone": "mini_xception", "checkpoint": "weights/fer_mini_xception_fer2013.hdf5"},
}
DISTILL, CLASSIFY, FINETUNE = 2000, 200, 800
"""Steps of 64 faces. Labels alone have as many as all three together."""


def get_config(arg="labels"):
    """One of the runs."""
    check_argument(arg, ("labels", "after", *TEACHERS, "soft_targets", "small"))
    small = arg == "small"
    teacher = {"small": "imagenet", "soft_targets": "half"}.get(arg, arg)
    config = (bounded if arg == "soft_targets" else smkd).default_config()
    config.batch_size = 64
    config.data.source = "ferplus"
    config.data.options = {"protocol": "majority"}
    config.data.canvas = 48
    config.data.in_memory = True
    # Equal files are left out all the same; FER+'s own splits are not divided by likeness either way.
    config.data.split.compare_copies = False
    config.data.labels.limit = 500
    config.data.augment.update({"crop_area": (0.7, 1.0), "aspect": (0.9, 1.1), "saturation": 0.0})
    config.student = defaults.network("basic_cnn", size=32, width=16)
    config.weighting = ({"name": "uniform"},)
    config.evaluation = defaults.every(steps=100)
    config.checkpoint.keep = 1
    config.phases.distill = defaults.phase(steps=3 if small else DISTILL, learning_rate=2e-3)
    if teacher in TEACHERS:
        config.teachers[teacher] = defaults.teacher(**TEACHERS[teacher])
        config.select.which = "last"
        if not small:
            config.data.views = 4
            config.cache.dir = f"runs/cache/few_labels_{teacher}"
    if arg == "soft_targets":
        config.soft_targets.alpha = 1.0
        return config
    phases = {
        "probe": defaults.phase(steps=3 if small else 300, learning_rate=1e-3),
        "distill": config.phases.distill,
        "classify": defaults.phase(steps=CLASSIFY, learning_rate=2e-3),
        "finetune": defaults.phase(steps=FINETUNE, learning_rate=1e-3),
    }
    if arg == "labels":
        phases["finetune"] = defaults.phase(steps=DISTILL + CLASSIFY + FINETUNE, learning_rate=8e-3)
    wanted = {"labels": ("finetune",), "after": ("classify", "finetune")}.get(arg, ("probe", "distill"))
    for name in config.phases:
        config.phases[name] = phases.get(name, config.phases[name])
        config.phases[name].enabled = name in wanted
    return config
