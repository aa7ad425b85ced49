"""MT-PKDOT on feature tables of three modalities: examples, a small configuration, batches, and its last phase."""

import jax
import jax.numpy as jnp
import numpy as np

from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.data.pipeline import evaluation_batches, train_batches
from emokd.recipes import mtpkdot
from emokd.recipes.common.task import Task
from emokd.training.step import gradients, parameter_labels

ROWS, CLASSES = 24, ("no", "some", "much")


def make_examples(targets=("expression",)) -> Examples:
    """Feature tables of three modalities with a common cause; the eyes lack an entry here and there."""
    rng = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    tables = {
        f"features/{name}": (rng.normal(size=(ROWS, size)) + labels[:, None] * scale).astype(np.float32)
        for name, size, scale in (("eye", 5, 0.5), ("skin", 4, 1.0), ("heart", 3, 2.0))
    }
    tables["features/eye"][::7, 2] = np.nan
    columns = {
        "expression": labels.astype(np.int32),
        "valence_arousal": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
    }
    columns = {name: columns[name] for name in targets}
    return Examples(
        name="tables",
        keys=[f"row{i}" for i in range(ROWS)],
        columns=columns,
        classes={"expression": CLASSES} if "expression" in columns else {},
        inputs={name: table.__getitem__ for name, table in tables.items()},
        content=str,
    )


def make_config():
    config = mtpkdot.default_config()
    config.batch_size = 12
    for name, privileged in (("eye", False), ("skin", True), ("heart", True)):
        config.modalities[name] = defaults.modality(f"features/{name}", "mlp", privileged=privileged, widths=(8,))
    config.width, config.adapter_width = 8, 4
    config.hallucination.options = {"encoder": (8, 4), "decoder": (8,)}
    config.structure.k, config.structure.solver = 4, "geomloss"  # which compiles faster than the default
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


def build(config, examples, devices=1):
    inputs = {name: read(0).shape for name, read in examples.inputs.items()}
    sizes = {"labelled": len(examples)}
    task = Task(examples.classes, tuple(examples.columns), sizes, config.batch_size, inputs=inputs, devices=devices)
    return mtpkdot.build(config, task, {})


def batches(examples, config, count=1):
    stream = train_batches(examples, batch_size=config.batch_size, seed=0, canvas=8, fit="crop", num_threads=0)
    return [jax.tree.map(jnp.asarray, next(stream)) for _ in range(count)]


def whole(examples, config):
    stream = evaluation_batches(examples, batch_size=config.batch_size, canvas=8, fit="crop", num_threads=0)
    return [jax.tree.map(jnp.asarray, batch) for batch in stream]


def gradients_of(recipe, state, batch):
    """What the last phase's step computes before the optimiser."""
    labels = parameter_labels(recipe)
    _, outcome, weights, _ = jax.jit(lambda s, b: gradients(recipe, recipe.phases[-1], labels, s, {}, b))(state, batch)
    return outcome, weights


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)))
