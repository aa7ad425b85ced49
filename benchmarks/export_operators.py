"""Where ONNX Runtime spends a pass of our export of a network, on one thread: kinds of operators, and the convolutions.

    python benchmarks/export_operators.py [--networks=emonet,efficientformer_l1] [--steps=20] [--page=FILE]

A pass is the processor's time; each operator is the shortest of its elapsed times, which a busy machine does not
lengthen where they are short. Convolutions of several channels are long, so they are given what is left of the pass.
Beside them is what NumPy's product of two large matrices reaches on one thread (set OPENBLAS_NUM_THREADS=1).
"""

import collections
import json
import os
import pathlib
import tempfile
import time

import numpy as np
from absl import flags
from export import exported
from inference import create_spec
from side_by_side import Page, Settings, launch

from emokd.models.cost import describe
from emokd.reporting.table import Table

SIDE = 2048  # of the matrices
PRODUCTS = ("Conv", "Conv of single channels", "MatMul", "FusedMatMul", "Gemm")


def profile(name: str, steps: int) -> tuple[float, dict[str, list[float]]]:
    """Seconds of the processor for a pass (the median), and by kind of operator the shortest seconds of each."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    size = create_spec(name).preprocessing.size
    picture = {"image": np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)}
    plain = onnxruntime.InferenceSession(exported(name), options, providers=["CPUExecutionProvider"])
    passes = []
    for _ in range(steps + 1):
        begun = time.thread_time()
        plain.run(None, picture)
        passes.append(time.thread_time() - begun)
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(exported(name), options, providers=["CPUExecutionProvider"])
        for _ in range(steps):
            session.run(None, picture)
        events = json.loads(pathlib.Path(session.end_profiling()).read_text())
    shortest: dict[str, float] = collections.defaultdict(lambda: float("inf"))
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            shortest[event["name"]] = min(shortest[event["name"]], event["dur"] / 1e6)
            kinds[event["name"]] = _kind(event["args"])
    found: dict[str, list[float]] = collections.defaultdict(list)
    for node, seconds in shortest.items():
        found[kinds[node]].append(seconds)
    return float(np.median(passes[1:])), found


def _kind(event: dict) -> str:
    if event["op_name"] != "Conv":
        return event["op_name"]
    kernel = next(iter(event["input_type_shape"][1].values()))
    return "Conv of single channels" if kernel[1] == 1 else "Conv"


def matrix_product() -> float:
    """Multiply-accumulates a second of a large matrix product in this process."""
    matrix = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    seconds = []
    for _ in range(6):
        begun = time.process_time()
        np.matmul(matrix, matrix)
        seconds.append(time.process_time() - begun)
    return SIDE**3 / min(seconds)


def table(name: str, steps: int, peak: float) -> Table:
    """The kinds of operators of one network."""
    whole, kinds = profile(name, steps)
    others = {kind: sum(seconds) for kind, seconds in kinds.items() if kind != "Conv"}
    times = {"Conv": whole - sum(others.values()), **others}
    rows = [
        [kind, str(len(kinds[kind])), f"{1e3 * seconds:.2f}", f"{seconds / whole:.1%}"]
        for kind, seconds in sorted(times.items(), key=lambda item: -item[1])
    ]
    rate = describe(create_spec(name))["macs"] / sum(times.get(kind, 0.0) for kind in PRODUCTS)
    note = (
        f"A pass takes {1e3 * whole:.1f} ms. Convolutions and matrix products do {rate / 1e9:.0f} GMAC/s, "
        f"{rate / peak:.2f} of a large matrix product's {peak / 1e9:.0f}."
    )
    return Table(["operator", "how many", "ms", "of the pass"], rows, title=name, notes=[note])


def measure(settings: Settings) -> Page:
    """All networks."""
    networks = ["mobilenet_v2@64"] if settings.small else flags.FLAGS.networks
    peak = matrix_product()
    tables = [table(name, settings.rule.steps, peak) for name in networks]
    return Page("Operators of exports", tables, {"precision": "float32", "threads": "1"})


if __name__ == "__main__":
    flags.DEFINE_list("networks", ["emonet", "efficientformer_l1"], "Networks.")
    launch(measure)
