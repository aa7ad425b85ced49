"""Predicts emotions of pictures, or of the faces in them: one JSON line per file. Or of the frames of a video.

python -m emokd.predict --model=runs/quickstart/student [--faces] FILES_OR_FOLDERS...
python -m emokd.predict --model=runs/quickstart/student [--faces] --video=FILE --output=FOLDER [--smooth=SECONDS]
"""

import json
import sys

from absl import flags

from emokd.data.face_crop import CROPS
from emokd.errors import InputError
from emokd.inference.faces import FaceCropper, YuNet
from emokd.inference.predictor import Predictor, find_pictures
from emokd.inference.video import predict_video
from emokd.jobs.command import run
from emokd.models.network import PRECISIONS
from emokd.weights import model_folder

MODEL = flags.DEFINE_string("model", None, "A model folder, such as a workdir's `student`.", required=True)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Pictures per step.", lower_bound=1)
CANVAS = flags.DEFINE_integer("canvas", 0, "Side of the square that pictures are made into; 0: as in training.")
FIT = flags.DEFINE_enum("fit", "", ["", "crop", "squash", "pad"], "How they become squares; empty: as in training.")
PRECISION = flags.DEFINE_enum(
    "precision", "", ["", *PRECISIONS], "What the network computes in; empty: as in training."
)
FACES = flags.DEFINE_bool("faces", False, "Find faces and answer for each; off: the pictures are crops already.")
FACE_CROP = flags.DEFINE_enum(
    "face_crop", "", ["", *CROPS], "How faces are cut out: around landmarks, or just the face; empty: as in training."
)
VIDEO = flags.DEFINE_string("video", None, "A video instead of pictures; with --faces, the largest face counts.")
OUTPUT = flags.DEFINE_string("output", None, "The folder for --video's table and annotated video.")
SMOOTH = flags.DEFINE_float("smooth", 0.0, "Time constant, seconds, of smoothing a video's answers; 0: none.", 0.0)


def main(argv: list[str]) -> None:
    """The command.

    Raises:
      InputError: flags do not go together, a file is missing, or some pictures could not be read (after all the
        others' answers).
    """
    _check_flags(argv[1:])
    files = [] if VIDEO.value else find_pictures(argv[1:])
    model, seen_as = model_folder.load_with_canvas(MODEL.value)
    crop = FACE_CROP.value or seen_as.face_crop
    cropper = FaceCropper(YuNet(second_look=not VIDEO.value), crop) if FACES.value else None
    predictor = Predictor(
        model,
        canvas=CANVAS.value or seen_as.canvas,
        fit=FIT.value or seen_as.fit,
        batch_size=BATCH_SIZE.value,
        precision=PRECISION.value or seen_as.precision,
        mirror=seen_as.mirror,
    )
    if VIDEO.value:
        print(json.dumps(predict_video(predictor, VIDEO.value, OUTPUT.value, cropper=cropper, smooth=SMOOTH.value)))
        return
    unreadable = 0
    for record in predictor.predict(files, cropper):
        unreadable += "error" in record
        print(json.dumps(record), flush=True)
    sys.stdout.flush()
    if unreadable:
        raise InputError(f"{unreadable} of {len(files)} pictures could not be read; their lines say why.")


def _check_flags(files: list[str]) -> None:
    if VIDEO.value and files:
        raise InputError(f"--video and pictures ({files[0]}) are given; give one of them at a time.")
    if VIDEO.value and not OUTPUT.value:
        raise InputError("--video needs a folder for what it writes: give --output=FOLDER.")
    if not VIDEO.value and (OUTPUT.value or SMOOTH.value):
        raise InputError("--output and --smooth go with --video; pictures are answered on the standard output.")


if __name__ == "__main__":
    run(main)
