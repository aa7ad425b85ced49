"""Predicts emotions of pictures: one JSON line per file.

python -m emokd.predict --model=runs/quickstart/student FILES_OR_FOLDERS...
"""

import json
import sys

from absl import flags

from emokd.command import run
from emokd.errors import InputError
from emokd.inference import Predictor, find_pictures
from emokd.weights import model_folder

MODEL = flags.DEFINE_string("model", None, "A model folder, such as a workdir's `student`.", required=True)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Pictures per step.", lower_bound=1)
CANVAS = flags.DEFINE_integer("canvas", 0, "Side of the square that pictures are made into; 0: as in training.")
FIT = flags.DEFINE_enum("fit", "", ["", "crop", "squash", "pad"], "How they become squares; empty: as in training.")


def main(argv: list[str]) -> None:
    """The command.

    Raises:
      InputError: a file is missing, or some pictures could not be read (after all the others' answers).
    """
    files = find_pictures(argv[1:])
    model, seen_as = model_folder.load_with_canvas(MODEL.value)
    predictor = Predictor(
        model, canvas=CANVAS.value or seen_as.canvas, fit=FIT.value or seen_as.fit, batch_size=BATCH_SIZE.value
    )
    unreadable = 0
    for record in predictor.predict(files):
        unreadable += "error" in record
        print(json.dumps(record), flush=True)
    sys.stdout.flush()
    if unreadable:
        raise InputError(f"{unreadable} of {len(files)} pictures could not be read; their lines say why.")


if __name__ == "__main__":
    run(main)
