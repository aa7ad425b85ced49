"""SMKD's distillation step with three teachers: live, cached, against its own parts and against plain PyTorch.

    python benchmarks/smkd_step.py [--steps=20] [--small] [--nocompiled] [--page=FILE]

All in one interleaved run. "supervised" is the step that trains the same student on labels. "networks" is the sum of
what the step's networks take alone: each teacher forward, the student forward and backward; "augmentation" renders the
pictures of all of them. The PyTorch side starts from the same weights and computes the same loss, and gets its
pictures rendered: that part is ours alone. Pictures are seen whole, without crops and colours, so that losses agree.
"""

import dataclasses
import functools

import jax
import ml_collections
import numpy as np
from side_by_side import PICTURES, Comparison, Page, Settings, launch, on_accelerator, precision, total
from training_step import TrainingStep, as_compared, as_they_are, create_task, random_batch

from emokd.configuration import defaults
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.parts import AUGMENTATION
from emokd.recipes import smkd, supervised

# Skills of three teachers: a light network that knows objects, and two of the kind that is trained on faces and scenes.
TEACHERS = {"faces": "resnet18", "objects": "mobilenet_v2", "scenes": "resnet18"}
STUDENT = "basic_cnn"
LEARNING_RATE = 1e-4


def create_teachers(size: int) -> dict[str, TrainedModel]:
    """The teachers, with random weights."""
    found = {}
    for index, (name, backbone) in enumerate(TEACHERS.items()):
        spec = NetworkSpec(backbone, heads={name: 10})
        seen = functional(spec).module.backbone.preprocessing
        spec = dataclasses.replace(spec, preprocessing=dataclasses.replace(seen, size=size))
        params, stats = jax.tree.map(np.array, jax.jit(functional(spec).init)(jax.random.key(index)))
        found[name] = TrainedModel(spec, params, stats, origin="random")
    return found


def configure(config: ml_collections.ConfigDict, phase: str, size: int, batch_size: int) -> ml_collections.ConfigDict:
    """What both recipes have in common: batch, student, pictures as they are, plain Adam at a constant rate."""
    config.batch_size, config.student = batch_size, defaults.network(STUDENT, size=size)
    config.phases[phase] = defaults.phase(
        epochs=1, learning_rate=LEARNING_RATE, warmup_percent=0.0, schedule="constant"
    )
    as_they_are(config)
    as_compared(config)
    return config


def create_step(models: dict[str, TrainedModel], size: int, batch_size: int, cached: bool = False) -> TrainingStep:
    """Our distillation step."""
    config = configure(smkd.default_config(), "distill", size, batch_size)
    for name in models:
        config.teachers[name] = defaults.teacher(TEACHERS[name], checkpoint="random", size=size)
    recipe = smkd.build(config, create_task(batch_size), models)
    widths = {name: functional(model.spec).module.backbone.feature_size for name, model in models.items()}
    features = {f"features/{name}": ((width,), np.float32) for name, width in widths.items()} if cached else {}
    batch = random_batch(batch_size, image=((size, size, 3), np.uint8), **features)
    return TrainingStep(recipe, config, "distill", batch)


def create_supervised(size: int, batch_size: int) -> TrainingStep:
    """The step that trains the same student on labels."""
    config = configure(supervised.default_config(), "train", size, batch_size)
    recipe = supervised.build(config, create_task(batch_size), {})
    return TrainingStep(recipe, config, "train", random_batch(batch_size, image=((size, size, 3), np.uint8)))


def create_torch_call(step, models, cached, variant):
    """PyTorch's distillation step."""
    import torch_smkd

    return torch_smkd.create_call(step, models, cached, LEARNING_RATE, variant)


def measure(settings: Settings) -> Page:
    """Ours, its parts, the supervised step, and PyTorch's, in one run."""
    size, batch_size = (32, 4) if settings.small else (96, 64 if on_accelerator() else 32)
    models = create_teachers(size)
    sides = Comparison()
    live = sides.add("live", functools.partial(create_step, models, size, batch_size))
    cached = sides.add("cached", functools.partial(create_step, models, size, batch_size, cached=True))
    sides.add("supervised", functools.partial(create_supervised, size, batch_size))
    with jax.set_mesh(live.programs.mesh):
        apart = live.dissect()
        moving = live.step.flatten(live.state).moving
        parts = {f"{name} ({apart.parts[name]})": name for name in (*live.recipe.networks, AUGMENTATION)}
        for title, name in parts.items():
            call = functools.partial(apart.compile(apart.alone(name), donate=False), moving)
            sides.add(title, lambda call=call: call)
    for name, step, is_cached in (("PyTorch live", live, False), ("PyTorch cached", cached, True)):
        make = functools.partial(create_torch_call, step, models, is_cached)
        sides.attempt_variants(name, make, PICTURES, settings.compiled)
    times = sides.measure(settings)
    networks = [title for title, name in parts.items() if name != AUGMENTATION]
    sums = {"networks": total(times, networks), "networks and views": total(times, list(parts))}
    times |= sums
    theirs = [name for name in sides.order if name.startswith("PyTorch")]
    tables = [
        sides.table(times, "networks", "Live teachers against the networks alone", names=["live", *sums, *parts]),
        sides.table(times, "supervised", "Cached teachers against the supervised step", names=["cached", "supervised"]),
        sides.table(times, "live", "Live teachers against PyTorch", names=["live", *theirs[: len(PICTURES)]]),
        sides.table(times, "cached", "Cached teachers against PyTorch", names=["cached", *theirs[len(PICTURES) :]]),
    ]
    shape = f"{STUDENT}, taught by {', '.join(f'{k} ({b})' for k, b in TEACHERS.items())}"
    facts = {"precision": precision(), "networks": shape, "batch": f"{batch_size} at {size} x {size}"}
    return Page("SMKD distillation step", tables, facts)


if __name__ == "__main__":
    launch(measure)
