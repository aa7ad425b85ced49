"""What integers cost a student that has learnt to compute in them, and one that has not: configs/studies/integers.py.

    python benchmarks/integers.py --study=runs/studies/integers

Exports the students of `longer` (floating point) and of `integers` to int8, scores both files in ONNX Runtime on the
test split, and prints the paired differences over the seeds with 95% intervals by Student's t. Needs onnx and
onnxruntime, and the runs' data.
"""

import json
import pathlib

from absl import app, flags

from emokd.errors import InputError
from emokd.exporting import examples
from emokd.exporting.checking import check
from emokd.exporting.export import INTEGERS, read_student
from emokd.exporting.formats import find_format
from emokd.exporting.formats.format import Request
from emokd.jobs.command import readable_errors
from emokd.studies.intervals import mean_interval

FLOATING, QUANTISED = "longer", "integers"
METRIC = "accuracy"
ALL = 10**9
TIES = 3
"""How many answers another order of sums may change."""


def measure(run: pathlib.Path) -> tuple[float, float]:
    """The accuracy of the network in JAX and of its int8 file on the run's test split."""
    folder, onnx = run / "student", find_format("onnx")
    student = read_student(folder, precision=INTEGERS)
    request = Request(student, INTEGERS, ".onnx", lambda: examples.calibration(student, folder))
    runner = onnx.open(student, onnx.write(request).content, ".onnx")
    sample = examples.of_run(student, run, "test", ALL)
    found = check(student, runner, sample, format=onnx, precision=INTEGERS, accept=True, sizes=())
    scores = found.scores["expression"][METRIC]
    # What the run itself has scored: other numbers here are those of other faces.
    of_run = json.loads((run / "scores.json").read_text())
    theirs = of_run["student"]["expression"]
    if found.examples != of_run["examples"] or abs(scores["network"] - theirs[METRIC]) > TIES / found.examples:
        raise InputError(
            f"{run} scored {theirs[METRIC]:.4f} on {of_run['examples']} examples, and here it is "
            f"{scores['network']:.4f} on {found.examples}: EMOKD_DATA names other data than the study had."
        )
    print(
        f"{run}: network {scores['network']:.4f}, int8 file {scores['file']:.4f}, {found.examples} examples", flush=True
    )
    return scores["network"], scores["file"]


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise app.UsageError(f"What is {' '.join(argv[1:])}?")
    runs = pathlib.Path(flags.FLAGS.study) / "runs"
    seeds = sorted(
        path.parent.name
        for path in (runs / QUANTISED).glob("*/scores.json")
        if (runs / FLOATING / path.parent.name / "scores.json").exists()
    )
    if not seeds:
        raise app.UsageError(f"{runs} holds no seed with finished runs of both {FLOATING} and {QUANTISED}.")
    with readable_errors("integers"):
        floating = [measure(runs / FLOATING / seed) for seed in seeds]
        quantised = [measure(runs / QUANTISED / seed) for seed in seeds]
    pairs = [(*one, *other) for one, other in zip(floating, quantised, strict=True)]
    differences = {
        "int8 afterwards - float": [after - network for network, after, _, _ in pairs],
        "int8 learnt - float": [learnt - network for network, _, _, learnt in pairs],
        "int8 learnt - int8 afterwards": [learnt - after for _, after, _, learnt in pairs],
        "int8 learnt: file - simulation": [learnt - simulated for _, _, simulated, learnt in pairs],
    }
    print(f"{METRIC} on the test split, {', '.join(seeds)}:")
    for name, values in differences.items():
        found = mean_interval(values)
        print(f"{name}: {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")


if __name__ == "__main__":
    flags.DEFINE_string("study", None, "The study's folder.", required=True)
    app.run(main)
