"""A supervised training step of MobileNetV2 and of ResNet-18: ours against PyTorch's.

    python benchmarks/supervised_step.py [--steps=20] [--small] [--nocompiled] [--page=FILE]

The same step on all sides: forward in training, cross-entropy, backward, Adam, from the same weights on the same
normalised pictures. "with views" is the step that training really takes: from uint8 canvases, with crop, flip and
colours of each network's view rendered inside. On a GPU all sides compute in bfloat16, with float32 parameters.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from side_by_side import PICTURES, Comparison, Page, Settings, launch, on_accelerator, precision
from training_step import CLASSES, TrainingStep, as_compared, as_they_are, create_task, random_batch, seen

from emokd.configuration import defaults
from emokd.losses import affect
from emokd.models.cost import describe
from emokd.models.network import functional
from emokd.phase import Outcome, Term
from emokd.recipes import supervised

NETWORKS = ("mobilenet_v2", "resnet18")
LEARNING_RATE = 1e-4


def create_config(backbone: str, size: int, batch_size: int):
    """The configuration of the supervised recipe that all sides follow."""
    config = supervised.default_config()
    config.batch_size, config.student = batch_size, defaults.network(backbone, size=size)
    config.phases.train = defaults.phase(epochs=1, learning_rate=LEARNING_RATE, warmup_percent=0.0, schedule="constant")
    as_compared(config)
    return config


def create_step(backbone: str, size: int, batch_size: int, views: bool = False) -> TrainingStep:
    """Our step on canvases of the network's size; without `views`, on pixels that are rendered already."""
    config = create_config(backbone, size, batch_size)
    if not views:
        as_they_are(config)
    recipe = supervised.build(config, create_task(batch_size), {})
    batch = random_batch(batch_size, image=((size, size, 3), np.uint8))
    if not views:
        recipe = on_pixels(recipe)
        batch = {**batch, "pixels": jnp.asarray(seen(batch["image"], recipe.student_spec))}
    return TrainingStep(recipe, config, "train", batch)


def on_pixels(recipe):
    """The recipe with an objective that reads `pixels`, normalised, where the other sides begin."""
    student = functional(recipe.student_spec)
    dtype = jnp.bfloat16 if on_accelerator() else jnp.float32

    def objective(params, stats, constants, batch, context):
        pixels = batch["pixels"].astype(dtype)
        signals, moved = student(params["student"], stats["student"], pixels, train=True, key=context.key)
        values = affect.cross_entropy(signals.logits, batch["expression"])
        return Outcome({"expression": Term(values, batch["mask"])}, {"student": moved})

    return dataclasses.replace(recipe, phases=[dataclasses.replace(recipe.phases[0], objective=objective)])


def create_torch_call(step: TrainingStep, backbone: str, variant: str) -> Callable[[], float]:
    """PyTorch's step from the weights that `step` had at first, on its batch."""
    import torch_networks
    import torch_side
    from torch.nn.functional import cross_entropy

    params, stats = (tree["student"] for tree in step.initial)
    network = torch_networks.load(torch_networks.Network(backbone, {"expression": len(CLASSES)}), params, stats)
    network = torch_side.place(network.train(), variant)
    inputs = [torch_side.tensor(step.batch[name], variant) for name in ("pixels", "expression")]

    def loss(pixels, labels):
        return cross_entropy(network(pixels)[1]["expression"], labels)

    return torch_side.training_call(loss, inputs, network.parameters(), variant, LEARNING_RATE)


def measure(settings: Settings) -> Page:
    """Each network in an interleaved run of its own."""
    size, batch_size = (32, 2) if settings.small else (224, 64 if on_accelerator() else 8)
    tables = []
    for backbone in NETWORKS:
        sides = Comparison()
        step = sides.add("emokd", functools.partial(create_step, backbone, size, batch_size))
        sides.add("emokd, with views", functools.partial(create_step, backbone, size, batch_size, views=True))
        sides.attempt_variants(
            "PyTorch",
            functools.partial(create_torch_call, step, backbone),
            PICTURES,
            settings.compiled,
        )
        cost = describe(step.recipe.student_spec)
        note = f"{cost['parameters']:,} parameters and {cost['macs'] / 1e6:.1f} M MACs a picture, on all sides."
        title = f"{backbone}, batch of {batch_size} at {size} x {size}"
        tables.append(sides.table(sides.measure(settings), "emokd", title, notes=[note]))
    return Page("Supervised training step", tables, {"precision": precision()})


if __name__ == "__main__":
    launch(measure)
