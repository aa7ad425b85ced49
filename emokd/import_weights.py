"""Makes a model folder of a weights file of another framework.

python -m emokd.import_weights --model=mobilenet_v2 --checkpoint=FILE --output=FOLDER
    [--head=objects] [--leave_out=fc,...] [--classes=cat,dog,... or a file with one name per line]
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from emokd.command import run
from emokd.errors import InputError
from emokd.models.network import count_parameters
from emokd.weights.importing import file_hash, import_file
from emokd.weights.model_folder import save_model

MODEL = flags.DEFINE_string("model", None, "Architecture, as in configurations: resnet50, mobilenet_v2, ...")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Weights file: .pth, .pt, .bin, .safetensors, .h5 or .hdf5.")
OUTPUT = flags.DEFINE_string("output", None, "Model folder to write.")
HEAD = flags.DEFINE_string("head", "", "Name for the file's head; empty: 'pretrained', where the file has a head.")
LEAVE_OUT = flags.DEFINE_list("leave_out", [], "Modules of the file that are not wanted, by their names in it.")
CLASSES = flags.DEFINE_string("classes", "", "Names of the head's classes, in order, or a file with one per line.")


def import_weights(
    model: str,
    checkpoint: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    head: str = "",
    leave_out: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> str:
    """Reads the weights file `checkpoint` and writes the model folder `output`.

    Args:
      model: architecture.
      checkpoint: weights file.
      output: model folder.
      head: see `importing.import_file`.
      leave_out: likewise.
      classes: likewise.

    Returns:
      One line that says what was written.

    Raises:
      InputError: the file does not fit, or the folder cannot be written.
    """
    checkpoint = pathlib.Path(checkpoint)
    trained = import_file(model, checkpoint, head=head, leave_out=leave_out, classes=classes)
    provenance = {"source": checkpoint.name, "source_sha256": file_hash(checkpoint), "left_out": list(leave_out)}
    save_model(output, trained.spec, trained.params, trained.stats, provenance)
    heads = ", ".join(f"{name} ({size})" for name, size in trained.spec.heads.items()) or "none"
    return f"{output}: {model}, {count_parameters(trained.params):,} parameters, heads: {heads}, from {trained.origin}"


def read_classes(text: str) -> list[str]:
    """Class names from a comma-separated list, or from a file with one per line.

    Raises:
      InputError: one of the names is empty.
    """
    path = pathlib.Path(text)
    names = path.read_text().splitlines() if text and path.is_file() else text.split(",") if text else []
    names = [name.strip() for name in names]
    if not all(names):
        raise InputError(f"--classes={text}: class name number {names.index('') + 1} is empty.")
    return names


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
    flags.mark_flags_as_required(["model", "checkpoint", "output"])
    run(main)
