"""Inference of EmoNet and of its students: ours, PyTorch's and ONNX Runtime's, in turn, a table for each batch size.

    python benchmarks/inference.py [--batches=1,8,32] [--steps=20] [--networks=emonet,mobilenet_v2] [--page=FILE]
    python benchmarks/inference.py --noothers --networks=emonet,mobilenet_v2@64,mobilenet_v2:width=0.35@64

Weights are random, which changes no time. Every network has its usual input size, or the one behind its @, and
classifies eight expressions. EmoNet and MobileNetV2 are written from their descriptions on both sides, EfficientFormer
is that of transformers. ONNX Runtime runs what PyTorch exports; it needs onnx, onnxscript and onnxruntime, which no
other part of emokd does. A side whose package is missing is named as not measured.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence

import jax
from absl import flags
from side_by_side import PICTURES, Comparison, Page, Settings, launch

from emokd.benchmarking.timing import Timing, ratio
from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.models.network import NetworkSpec, functional
from emokd.recipes.common.networks import resized
from emokd.reporting.table import Table

EXPRESSIONS = 8
ONNX = "ONNX Runtime"


def create_spec(network: str) -> NetworkSpec:
    """The network `name[:option=number][@size]` with a joint head; without a size at its usual one.

    Raises:
      InputError: the text is none such.
    """
    match = re.fullmatch(r"(\w+)(?::(\w+)=([\d.]+))?(?:@(\d+))?", network)
    if match is None:
        raise InputError(f"--networks has {network!r}: write name, name@size or name:option=number@size.")
    name, option, number, size = match.groups()
    options = {option: float(number) if "." in number else int(number)} if option else {}
    spec = NetworkSpec(name, options=options, heads={"expression": EXPRESSIONS, "valence_arousal": 2})
    preprocessing = functional(spec).module.backbone.preprocessing
    return dataclasses.replace(spec, preprocessing=resized(preprocessing, int(size)) if size else preprocessing)


def create_call(name: str, batch: int) -> Callable:
    """One compiled forward pass on a batch that is on the device."""
    spec = create_spec(name)
    network = functional(spec)
    params, stats = jax.jit(network.init)(jax.random.key(0))
    size = spec.preprocessing.size
    images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))

    def answer(params, stats, images):
        signals, _ = network(params, stats, images)
        return signals.logits, signals.valence_arousal

    return functools.partial(jax.jit(answer), params, stats, images)


def create_torch_network(name: str):
    """The same network in PyTorch, in evaluation mode.

    Raises:
      ImportError: a package is missing.
      KeyError: there is none.
    """
    import torch_networks
    from torch_emonet import EmoNet
    from transformers import EfficientFormerConfig, EfficientFormerForImageClassification

    heads = {"expression": EXPRESSIONS, "valence_arousal": 2}
    networks = {
        "emonet": lambda: EmoNet(EXPRESSIONS),
        "mobilenet_v2": lambda: torch_networks.Network("mobilenet_v2", heads),
        # transformers' default configuration is L1.
        "efficientformer_l1": lambda: EfficientFormerForImageClassification(
            EfficientFormerConfig(num_labels=EXPRESSIONS + 2)
        ),
    }
    return networks[name]().eval()


def create_torch_call(name: str, batch: int, variant: str) -> Callable:
    """PyTorch's forward pass."""
    import torch
    import torch_side

    network = torch_side.prepare(torch_side.place(create_torch_network(name), variant), variant)
    size = create_spec(name).preprocessing.size
    images = torch_side.tensor(jax.random.normal(jax.random.key(1), (batch, size, size, 3)), variant)

    def call():
        with torch.inference_mode():
            network(images)
        torch_side.finish()

    return call


def create_onnx_call(name: str, batch: int, threads: int = 0) -> Callable:
    """ONNX Runtime's forward pass of what PyTorch exports, on `threads` threads; 0: as many as it chooses."""
    import onnxruntime
    import torch
    import torch_side

    size = create_spec(name).preprocessing.size
    images = torch_side.tensor(jax.random.normal(jax.random.key(1), (batch, size, size, 3))).cpu()
    exported = io.BytesIO()
    torch.onnx.export(create_torch_network(name), (images,), exported, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported.getvalue(), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, {session.get_inputs()[0].name: images.numpy()})


def measure_batch(networks: Sequence[str], batch: int, settings: Settings) -> Table:
    """All sides of all networks at one batch size."""
    sides = Comparison()
    for name in networks:
        sides.add(f"{name}, emokd", functools.partial(create_call, name, batch))
        if not flags.FLAGS.others:
            continue
        make = functools.partial(create_torch_call, name, batch)
        sides.attempt_variants(f"{name}, PyTorch", make, PICTURES, settings.compiled)
        sides.attempt(f"{name}, {ONNX}", functools.partial(create_onnx_call, name, batch))
    times = sides.measure(settings)
    rows = []
    for side in sides.order:
        network = side.partition(",")[0]
        if side in sides.reasons:
            rows.append([sides.missing(side), *["-"] * 4])
            continue
        rows.append([side, *row(times[side], batch, times[f"{network}, emokd"], times[f"{networks[0]}, emokd"])])
    columns = ["side", "ms/image", "quartiles", "over emokd's", f"over emokd's {networks[0]}"]
    return Table(columns, rows, title=f"Batch of {batch}")


def row(time: Timing, batch: int, ours: Timing, first: Timing) -> list[str]:
    """Milliseconds per picture, and ratios to our side of the same network and to our first network."""
    low, high = (1e3 * seconds / batch for seconds in time.quartiles)
    return [
        f"{1e3 * time.median / batch:.3g}",
        f"{low:.3g} to {high:.3g}",
        f"{ratio(time, ours):.2f}",
        f"{ratio(time, first):.3f}",
    ]


def measure(settings: Settings) -> Page:
    """All networks at all batch sizes."""
    if not all(batch.isdigit() and int(batch) for batch in flags.FLAGS.batches):
        raise InputError(f"--batches={','.join(flags.FLAGS.batches)}: give whole numbers above 0, such as 1,8,32.")
    networks = ["mobilenet_v2"] if settings.small else flags.FLAGS.networks
    costs = [[name, describe(create_spec(name))] for name in networks]
    sizes = Table(
        ["network", "input", "parameters (M)", "MACs (G)"],
        [
            [name, str(create_spec(name).preprocessing.size), f"{c['parameters'] / 1e6:.2f}", f"{c['macs'] / 1e9:.3g}"]
            for name, c in costs
        ],
    )
    batches = [1] if settings.small else [int(batch) for batch in flags.FLAGS.batches]
    return Page(
        "Inference", [sizes, *(measure_batch(networks, b, settings) for b in batches)], {"precision": "float32"}
    )


if __name__ == "__main__":
    flags.DEFINE_list("networks", ["emonet", "mobilenet_v2", "efficientformer_l1"], "Networks; the first is 1.")
    flags.DEFINE_list("batches", ["1", "8", "32"], "Batch sizes.")
    flags.DEFINE_bool("others", True, "Also time PyTorch and ONNX Runtime.")
    launch(measure)
