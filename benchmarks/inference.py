"""Inference of EmoNet and of its students, all in one interleaved run: milliseconds per picture, and ratios to EmoNet.

    python benchmarks/inference.py [--batches=1,8,32] [--steps=20] [--networks=emonet,mobilenet_v2] [--output=FILE]

Weights are random, which changes no time. Every network has its usual input size. Given are medians over rounds in
which each network answers once; the first rounds are not counted. Where PyTorch and transformers are installed, their
MobileNetV2 runs in the same rounds, eager and in channels_last, on as many threads as JAX.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from emokd.benchmarking.timing import Rule, interleave, ratio
from emokd.command import run
from emokd.errors import InputError
from emokd.models.cost import describe
from emokd.models.network import NetworkSpec, functional
from emokd.reporting.provenance import provenance
from emokd.reporting.table import Table

NETWORKS = flags.DEFINE_list("networks", ["emonet", "mobilenet_v2", "efficientformer_l1"], "Networks; the first is 1.")
BATCHES = flags.DEFINE_list("batches", ["1", "8", "32"], "Batch sizes.")
STEPS = flags.DEFINE_integer("steps", 20, "Rounds that are timed.", lower_bound=1)
WARMUP = flags.DEFINE_integer("warmup", 3, "Rounds before them.", lower_bound=0)
TORCH = flags.DEFINE_bool("torch", True, "Also time PyTorch's MobileNetV2, where it is installed.")
OUTPUT = flags.DEFINE_string("output", "", "Also write the figures as JSON.")


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


def measure(names: list[str], batches: list[int], rule: Rule) -> dict[int, dict[str, dict[str, float]]]:
    """By batch size and network: milliseconds per picture, and time relative to the first network's."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for batch in batches:
        calls = create_calls(names, batch) | (create_torch_calls(batch) if TORCH.value else {})
        timings = interleave(calls, rule)
        found[batch] = {
            name: {"ms_per_image": 1e3 * timing.median / batch, "ratio": ratio(timing, timings[names[0]])}
            for name, timing in timings.items()
        }
    return found


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    if not all(batch.isdigit() and int(batch) for batch in BATCHES.value):
        raise InputError(f"--batches={','.join(BATCHES.value)}: give whole numbers above 0, such as 1,8,32.")
    batches = [int(batch) for batch in BATCHES.value]
    costs = {name: describe(create_spec(name)) for name in NETWORKS.value}
    found = measure(NETWORKS.value, batches, Rule(WARMUP.value, STEPS.value))
    columns = [f"{what}, batch {batch}" for batch in batches for what in ("ms/image", "ratio")]
    rows = []
    for name in found[batches[0]]:
        cost = costs.get(name, {})
        values = [f"{found[b][name][key]:.3g}" for b in batches for key in ("ms_per_image", "ratio")]
        macs = f"{cost['macs'] / 1e9:.2f}" if cost else "-"
        parameters = f"{cost['parameters'] / 1e6:.2f}" if cost else "-"
        rows.append([name, parameters, macs, *values])
    print(Table(["network", "parameters (M)", "MACs (G)", *columns], rows).markdown())
    facts = {"devices": str(jax.devices()), "precision": str(jnp.float32.dtype), **provenance()}
    print("\n".join(f"- {key}: {value}" for key, value in facts.items()))
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps({"costs": costs, "batches": found, **facts}, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
