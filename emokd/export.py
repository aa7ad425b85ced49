"""Exports a model for use without JAX, checked against the network, with a model card beside it.

python -m emokd.export --model=runs/quickstart/student [--format=onnx] [--preprocess] [--output=FILE] [--check=FOLDER]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

from absl import flags

from emokd.errors import InputError
from emokd.exporting.export import FORMATS, export
from emokd.jobs.command import run

MODEL = flags.DEFINE_string("model", None, "A model folder, such as a workdir's `student`.", required=True)
FORMAT = flags.DEFINE_string("format", "onnx", f"What to write: {', '.join(FORMATS)}.")
PREPROCESS = flags.DEFINE_bool("preprocess", False, "The graph takes uint8 pictures of any size and prepares them.")
OUTPUT = flags.DEFINE_string("output", "", "The file to write; empty: MODEL_onnx/model.onnx, beside the model folder.")
CHECK = flags.DEFINE_string("check", "", "A folder of pictures to compare on; empty: the run's validation split.")
TIMED = flags.DEFINE_bool("timed", True, "Measure how long batches of 1 and 32 take, beside JAX.")


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise InputError(f"What is {' '.join(argv[1:])}? All options are flags, such as --model={argv[1]}.")
    folder = pathlib.Path(MODEL.value)
    output = OUTPUT.value or folder.with_name(f"{folder.name}_{FORMAT.value}") / f"model.{FORMAT.value}"
    written = export(
        folder, output, format=FORMAT.value, preprocess=PREPROCESS.value, pictures=CHECK.value, timed=TIMED.value
    )
    check = written["check"]
    print(f"{output}: {written['bytes'] / 1e6:.1f} MB, with student.json and README.md")
    print(f"compared on {check['examples']} examples: {check['source']}")
    for name, difference in check["largest_difference"].items():
        same = check["same_first_class"].get(name)
        print(
            f"{name}: largest difference {difference:.1e}"
            + (f", same first class {same:.1%}" if same is not None else "")
        )
    for size, times in check["milliseconds"].items():
        ratio = times["onnxruntime"] / times["jax"]
        print(
            f"batch {size}: ONNX Runtime {times['onnxruntime']:.1f} ms, JAX {times['jax']:.1f} ms, {ratio:.2f} times it"
        )


if __name__ == "__main__":
    run(main)
