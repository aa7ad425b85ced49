"""Exports a model for use without JAX, checked against the network, with a model card beside it.

python -m emokd.export --model=runs/quickstart/student [--format=onnx] [--precision=int8]
    [--preprocess] [--output=FILE] [--check=FOLDER]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import pathlib

from absl import flags

from emokd.exporting.export import export
from emokd.exporting.formats import FORMATS, find_format
from emokd.jobs.command import run

MODEL = flags.DEFINE_string("model", None, "A model folder, such as a workdir's `student`.", required=True)
FORMAT = flags.DEFINE_string("format", "onnx", f"What to write: {', '.join(FORMATS)}.")
PRECISION = flags.DEFINE_string("precision", "float32", "What the file computes in: float32, float16 or int8.")
PREPROCESS = flags.DEFINE_bool("preprocess", False, "The graph takes uint8 pictures of any size and prepares them.")
OUTPUT = flags.DEFINE_string("output", "", "The file to write; empty: in a folder beside the model folder.")
CHECK = flags.DEFINE_string("check", "", "A folder of pictures to compare on; empty: the run's validation split.")
TIMED = flags.DEFINE_bool("timed", True, "Measure how long batches of 1 and 32 take, beside JAX.")
ACCEPT = flags.DEFINE_bool("accept", False, "Write an integer network although it changes more classes than allowed.")


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    folder = pathlib.Path(MODEL.value)
    format = find_format(FORMAT.value)
    kind = format.name if PRECISION.value == "float32" else f"{format.name}_{PRECISION.value}"
    output = OUTPUT.value or folder.with_name(f"{folder.name}_{kind}") / format.file
    written = export(
        folder,
        output,
        format=format.name,
        precision=PRECISION.value,
        preprocess=PREPROCESS.value,
        pictures=CHECK.value,
        timed=TIMED.value,
        accept=ACCEPT.value,
    )
    check = written["check"]
    print(f"{output}: {written['bytes'] / 1e6:.1f} MB, with student.json and README.md")
    print(f"compared on {check['examples']} examples, {check['source']}, in {check['runtime']}")
    for name, difference in check["largest_difference"].items():
        same = check["same_first_class"].get(name)
        print(
            f"{name}: largest difference {difference:.1e}"
            + (f", same first class {same:.1%}" if same is not None else "")
        )
        for key, sides in check["scores"].get(name, {}).items():
            print(f"  {key}: {sides['file']:.4f}, of the network {sides['network']:.4f}")
    for name, value in check["concordance"].items():
        print(f"{name}: CCC with the network's {value:.4f}")
    for size, times in check["milliseconds"].items():
        ratio = times["file"] / times["jax"]
        print(f"batch {size}: {times['file']:.1f} ms, JAX {times['jax']:.1f} ms, {ratio:.2f} times it")


if __name__ == "__main__":
    run(main)
