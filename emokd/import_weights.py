"""Makes a model folder of a weights file of another framework.

python -m emokd.import_weights --model=mobilenet_v2 --checkpoint=FILE --output=FOLDER
    [--head=objects] [--leave_out=fc,...] [--classes=cat,dog,... or a file with one name per line]
"""

from absl import flags

from emokd.command import run
from emokd.data.class_list import read_classes
from emokd.errors import InputError
from emokd.weights.importing import import_weights

MODEL = flags.DEFINE_string(
    "model", None, "Architecture, as in configurations: resnet50, mobilenet_v2, ...", required=True
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Weights file: .pth, .pt, .bin, .safetensors, .h5 or .hdf5.", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "Model folder to write.", required=True)
HEAD = flags.DEFINE_string("head", "", "Name for the file's head; empty: 'pretrained', where the file has a head.")
LEAVE_OUT = flags.DEFINE_list("leave_out", [], "Modules of the file that are not wanted, by their names in it.")
CLASSES = flags.DEFINE_string("classes", "", "Names of the head's classes, in order, or a file with one per line.")


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise InputError(f"What is {' '.join(argv[1:])}? All options are flags, such as --checkpoint={argv[1]}.")
    classes = read_classes(CLASSES.value)
    print(
        import_weights(
            MODEL.value, CHECKPOINT.value, OUTPUT.value, head=HEAD.value, leave_out=LEAVE_OUT.value, classes=classes
        )
    )


if __name__ == "__main__":
    run(main)
