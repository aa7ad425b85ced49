"""SMKD on your own pictures, some labelled, most not: class folders, teachers from files, a basic CNN.

Paper: Cladiere et al., 2025 (see configs/smkd/fi.py). PICTURES/CLASS/*.jpg are labelled. Pictures without a label lie
beside the classes, in PICTURES/unlabelled/ (or elsewhere: config.data.extra.source=image_folder and
config.data.extra.dir); the phase distill alone reads them. Splits are made by hash, or taken from
PICTURES/{train,validation,test}/CLASS/*.jpg. If people or videos have several pictures, name them in a manifest's
column `group`, which a folder has not.

Teachers are those of the files below that are in weights/, here or under EMOKD_DATA (docs/weights.md says where to get
them); the log names them. The one that was measured to help had learnt the same classes from many other labels
(docs/results/few_labels.md). Your own: a model folder, in weights/own or config.teachers.own.checkpoint. To leave one
out: config.teachers.identity.if_there=no.

Budgets are that study's, in steps of 64 pictures: 300 for the probes, 2,000 of imitation, 200 and 800 on labels; and as
many as the last three on labels alone, at the highest learning rate that the study found for these. They are steps,
since epochs of a few hundred pictures are too short. The study's pictures were faces of 48 pixels and its student saw
them at 32; other pictures may want other budgets.

Command:  python -m emokd.train --config=configs/smkd/folder.py --config.data.dir=PICTURES --workdir=runs/mine
Without a GPU, ask the teachers once for many steps and runs: config.data.views=4, as in the study, and a cache of their
answers (docs/data.md, Cached teachers).
Classes of very different sizes: --config.class_weights=balanced, --config.select.metric=expression/balanced_accuracy.
Fewer than a hundred labelled pictures: --config.batch_size=16. So few in validation that they choose by chance:
--config.select.which=last keeps the last step.
Expected: depends on the pictures and the teachers; docs/which_recipe.md has what was measured.
Hardware: any; `:small` reads the FI sample with three steps per phase (90 s of CPU time with everything to compile, 4
minutes beside six other programs on 2 cores of an AMD EPYC, 2026-11-30).
"""

from emokd.configuration import defaults
from emokd.configuration.config import check_argument
from emokd.recipes import smkd


def get_config(arg=""):
    """The configuration; `small` is a short version of it, on the FI sample."""
    check_argument(arg)
    small = arg == "small"
    config = smkd.default_config()
    config.batch_size = 64
    config.data.source = "fi_subset" if small else "image_folder"
    config.data.canvas = 80 if small else 192
    size = 64 if small else 160
    teacher, teachers = defaults.teacher, config.teachers
    # Objects, of ImageNet.
    teachers.mobilenet = teacher("mobilenet_v2", if_there="weights/mobilenet_v2-b0353104.pth", size=size)
    teachers.lite0 = teacher("efficientnet_lite0", if_there="weights/efficientnet-lite0-57934424.pth", size=size)
    if not small:
        # Expressions of faces: FER2013's and AffectNet's. Who it is: face-api's.
        teachers.xception = teacher("mini_xception", if_there="weights/fer_mini_xception_fer2013.hdf5")
        teachers.emonet = teacher("emonet", if_there="weights/emonet_8.pth")
        teachers.emonet.licence = "CC BY-NC-ND"
        manifest = "weights/face_api/face_recognition_model-weights_manifest.json"
        teachers.identity = teacher("face_api_identity", if_there=manifest, size=112)
        teachers.own = teacher(if_there="weights/own")
    config.student = defaults.network("basic_cnn", size=64 if small else 128)
    config.phases.probe = defaults.phase(steps=300, learning_rate=1e-3)
    config.phases.distill = defaults.phase(steps=2000, learning_rate=2e-3)
    config.phases.classify = defaults.phase(steps=200, learning_rate=2e-3)
    config.phases.finetune = defaults.phase(steps=800, learning_rate=1e-3)
    config.baseline = {"enabled": True, "learning_rate": 8e-3}
    config.evaluation = defaults.every(steps=100)
    if small:
        for name in config.phases:
            config.phases[name] = defaults.phase(steps=3, learning_rate=1e-3)
    return config
