"""Converts another framework's weights file to a model folder.

python -m emokd.import_weights --model=mobilenet_v2 --checkpoint=FILE --output=FOLDER
    [--head=objects] [--leave_out=fc,...] [--classes=cat,dog,... or a file with one name per line]
    [--key=state_dict_ema] [--options=style=pytorch,size=256]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
from absl import flags

from emokd.data.tables.class_list import read_classes
from emokd.jobs.command import run
from emokd.weights.importing import import_weights, read_options

MODEL = flags.DEFINE_string(
    "model", None, "Architecture, as in configurations: resnet50, mobilenet_v2, ...", required=True
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Weights file: PyTorch (.pth, .pt, .bin, .ckpt), .safetensors, Keras (.h5, .hdf5) or a manifest of TensorFlow.js.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Model folder to write.", required=True)
HEAD = flags.DEFINE_string("head", "", "Name for the file's head; empty: 'pretrained', where the file has a head.")
LEAVE_OUT = flags.DEFINE_list("leave_out", [], "Modules of the file that are not wanted, by their names in it.")
CLASSES = flags.DEFINE_string("classes", "", "Names of the head's classes, in order, or a file with one per line.")
KEY = flags.DEFINE_string(
    "key", "", "Which weights, where the file has several sets: what their names begin with, such as state_dict_ema."
)
OPTIONS = flags.DEFINE_list("options", [], "Options of the architecture: style=pytorch,size=256.")


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    classes = read_classes(CLASSES.value)
    print(
        import_weights(
            MODEL.value,
            CHECKPOINT.value,
            OUTPUT.value,
            head=HEAD.value,
            leave_out=LEAVE_OUT.value,
            classes=classes,
            key=KEY.value,
            options=read_options(OPTIONS.value),
        )
    )


if __name__ == "__main__":
    run(main)
