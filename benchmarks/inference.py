"""Inference of EmoNet and of its students, all in one interleaved run: milliseconds per picture, and ratios to EmoNet.

    python benchmarks/inference.py [--batches=1,8,32] [--steps=20] [--networks=emonet,mobilenet_v2] [--page=FILE]

Weights are random, which changes no time. Every network has its usual input size. Given are medians over rounds in
which each network answers once; the first rounds are not counted. Where PyTorch and transformers are installed, their
MobileNetV2 runs in the same rounds, eager and in channels_last, on as many threads as JAX.
"""

import dataclasses
import functools

import jax
import numpy as np
from absl import flags
from side_by_side import Page, Settings, launch

from emokd.benchmarking.timing import interleave, ratio
from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.models.network import NetworkSpec, functional
from emokd.reporting.table import Table

NETWORKS = flags.DEFINE_list("networks", ["emonet", "mobilenet_v2", "efficientformer_l1"], "Networks; the first is 1.")
BATCHES = flags.DEFINE_list("batches", ["1", "8", "32"], "Batch sizes.")
TORCH = flags.DEFINE_bool("torch", True, "Also time PyTorch's MobileNetV2, where it is installed.")


def create_spec(name: str) -> NetworkSpec:
    """The network with a joint head, at its usual input size."""
    spec = NetworkSpec(name, heads={"expression": 8, "valence_arousal": 2})
    return dataclasses.replace(spec, preprocessing=functional(spec).module.backbone.preprocessing)


def create_calls(names: list[str], batch: int) -> dict:
    """A call without arguments for each network: one compiled forward pass on a batch that is on the device."""
    calls = {}
    for name in names:
        spec = create_spec(name)
        network = functional(spec)
        params, stats = jax.jit(network.init)(jax.random.key(0))
        size = spec.preprocessing.size
        images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
        calls[name] = functools.partial(jax.jit(lambda p, s, x, n=network: n(p, s, x)[0].logits), params, stats, images)
    return calls


def create_torch_calls(batch: int) -> dict:
    """The same for PyTorch's MobileNetV2 of transformers; none where they are not installed."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    model = transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config()).eval()
    images = torch.randn(batch, 3, 224, 224)

    def call(model, images):
        with torch.inference_mode():
            return np.asarray(model(images).logits)

    last = torch.channels_last
    return {
        "PyTorch mobilenet_v2": functools.partial(call, model, images),
        "PyTorch mobilenet_v2, channels_last": functools.partial(
            call,
            transformers.MobileNetV2ForImageClassification(model.config).eval().to(memory_format=last),
            images.contiguous(memory_format=last),
        ),
    }


def measure_batches(names: list[str], batches: list[int], settings: Settings) -> dict[int, dict[str, dict[str, float]]]:
    """By batch size and network: milliseconds per picture, and time relative to the first network's."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for batch in batches:
        calls = create_calls(names, batch) | (create_torch_calls(batch) if TORCH.value else {})
        timings = interleave(calls, settings.rule, rest=settings.rest)
        found[batch] = {
            name: {"ms_per_image": 1e3 * timing.median / batch, "ratio": ratio(timing, timings[names[0]])}
            for name, timing in timings.items()
        }
    return found


def measure(settings: Settings) -> Page:
    """All networks at all batch sizes."""
    if not all(batch.isdigit() and int(batch) for batch in BATCHES.value):
        raise InputError(f"--batches={','.join(BATCHES.value)}: give whole numbers above 0, such as 1,8,32.")
    batches = [1] if settings.small else [int(batch) for batch in BATCHES.value]
    costs = {name: describe(create_spec(name)) for name in NETWORKS.value}
    found = measure_batches(NETWORKS.value, batches, settings)
    columns = [f"{what}, batch {batch}" for batch in batches for what in ("ms/image", "ratio")]
    rows = []
    for name in found[batches[0]]:
        cost = costs.get(name, {})
        values = [f"{found[b][name][key]:.3g}" for b in batches for key in ("ms_per_image", "ratio")]
        macs = f"{cost['macs'] / 1e9:.2f}" if cost else "-"
        parameters = f"{cost['parameters'] / 1e6:.2f}" if cost else "-"
        rows.append([name, parameters, macs, *values])
    table = Table(["network", "parameters (M)", "MACs (G)", *columns], rows)
    return Page("Inference", [table], {"precision": "float32"})


if __name__ == "__main__":
    launch(measure)
