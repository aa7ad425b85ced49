"""What an export is worth: our ONNX in ONNX Runtime over JAX, and what PyTorch exports beside it, in turn.

    python benchmarks/export.py [--networks=mobilenet_v2,resnet18] [--batches=1,32] [--steps=20] [--page=FILE]
    python benchmarks/export.py --clock=cpu --batches=1

Aims at a batch of 1, ONNX Runtime over JAX: MobileNetV2 and EfficientNet-B0 at most .6, ResNet-18 .5, EmoNet and
EfficientFormer-L1 .85. `--clock=cpu` counts the processor's time of all threads, with ONNX Runtime on one, in place of
elapsed time: how much there is to compute, on a machine that does other work as well. Weights are random, which changes
no time, and every network has its usual input size. Needs onnx and onnxruntime; PyTorch's exporter also needs torch and
onnxscript, and is named as not measured without them.
"""

import functools
import time
from collections.abc import Callable

import numpy as np
from absl import flags
from inference import create_call, create_onnx_call, create_spec, create_weights
from side_by_side import Comparison, Page, Settings, launch

from emokd.benchmarking.timing import interleave, ratio
from emokd.exporting.student import Student, create_graph
from emokd.exporting.writing import to_model
from emokd.inference.onnx_engine import Session
from emokd.models.network import TrainedModel
from emokd.reporting.table import Table
from emokd.weights.seen_as import SeenAs

AIMS = {"mobilenet_v2": 0.6, "efficientnet_b0": 0.6, "resnet18": 0.5, "emonet": 0.85, "efficientformer_l1": 0.85}
"""The largest ratio to JAX at a batch of 1 that we want."""

SIDES = ("JAX", "our export", "PyTorch's export")


@functools.cache
def exported(name: str) -> bytes:
    """The file of a network with random weights."""
    spec = create_spec(name)
    model = TrainedModel(spec, *create_weights(spec), origin="random")
    graph = create_graph(Student(model, SeenAs(spec.preprocessing.size, "crop", "landmarks")))
    return to_model(graph, "benchmark").SerializeToString()


def threads() -> int:
    """Of ONNX Runtime: threads that wait for work would count as the processor's time. 0: as many as it chooses."""
    return 1 if flags.FLAGS.clock == "cpu" else 0


def create_exported_call(name: str, batch: int) -> Callable:
    """ONNX Runtime's forward pass of what we export."""
    session, size = Session(exported(name), threads()), create_spec(name).preprocessing.size
    pictures = np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32)
    return functools.partial(session, {"image": pictures})


def measure_batch(networks: list[str], batch: int, settings: Settings) -> Table:
    """All sides of all networks at one batch size."""
    sides = Comparison()
    for name in networks:
        sides.add(f"{name}, JAX", functools.partial(create_call, name, batch))
        sides.add(f"{name}, our export", functools.partial(create_exported_call, name, batch))
        if flags.FLAGS.others:
            sides.attempt(f"{name}, PyTorch's export", functools.partial(create_onnx_call, name, batch, threads()))
    clock = time.process_time if flags.FLAGS.clock == "cpu" else time.perf_counter
    times = interleave(sides.calls, settings.rule, clock, rest=settings.rest)
    rows = []
    for name in networks:
        found = {side: times.get(f"{name}, {side}") for side in SIDES}
        over = [f"{ratio(found[side], found['JAX']):.2f}" if found[side] else "not measured" for side in SIDES[1:]]
        aim = f"{AIMS[name]:.2f}" if batch == 1 and name in AIMS else "-"
        rows.append([name, *(f"{1e3 * found[side].median:.3g}" for side in SIDES[:2]), *over, aim])
    columns = ["network", "JAX (ms)", "our export (ms)", "ours over JAX", "PyTorch's export over JAX", "aim"]
    return Table(columns, rows, title=f"Batch of {batch}")


def measure(settings: Settings) -> Page:
    """All networks at all batch sizes."""
    networks = ["mobilenet_v2@64"] if settings.small else flags.FLAGS.networks
    batches = [1] if settings.small else [int(batch) for batch in flags.FLAGS.batches]
    tables = [measure_batch(networks, batch, settings) for batch in batches]
    return Page("Export", tables, {"precision": "float32", "clock": flags.FLAGS.clock})


if __name__ == "__main__":
    flags.DEFINE_enum("clock", "elapsed", ["elapsed", "cpu"], "What is measured: elapsed time, or the processor's.")
    flags.DEFINE_list("networks", list(AIMS), "Networks.")
    flags.DEFINE_list("batches", ["1", "32"], "Batch sizes.")
    flags.DEFINE_bool("others", True, "Also time what PyTorch exports.")
    launch(measure)
