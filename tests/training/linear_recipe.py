"""A recipe small enough to check by hand: a linear student of two linear teachers, in three phases."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.losses import affect
from emokd.phase import Outcome, Phase, Recipe, Term
from emokd.signals import Signals
from emokd.weighting import chain as weighting

CLASSES, WIDTH, INPUTS = 3, 4, 6


def make_recipe(steps=(4, 3, 3), chain=None) -> Recipe:
    teachers = ("a", "b")
    rng = np.random.default_rng(0)
    constants = {
        name: {
            "features": rng.normal(size=(INPUTS, WIDTH)).astype(np.float32),
            "logits": rng.normal(size=(WIDTH, CLASSES)).astype(np.float32),
        }
        for name in teachers
    }

    def init(key):
        keys = jax.random.split(key, 4)
        normal = lambda k, *shape: jax.random.normal(k, shape, jnp.float32)  # noqa: E731
        params = {
            "backbone": {"w": normal(keys[0], INPUTS, WIDTH)},
            "head": {"w": normal(keys[1], WIDTH, CLASSES), "b": jnp.zeros((CLASSES,))},
            "adapters": {"a": normal(keys[2], WIDTH, WIDTH), "b": normal(keys[3], WIDTH, WIDTH)},
        }
        return params, {"mean": jnp.zeros((WIDTH,))}

    def moved(stats, features):
        return {"mean": 0.9 * stats["mean"] + 0.1 * features.mean(0)}

    def distill(params, stats, constants, batch, context):
        features = batch["x"] @ params["backbone"]["w"]
        losses, logits = [], []
        for name in teachers:
            target = batch["x"] @ constants[name]["features"]
            losses.append(((features @ params["adapters"][name] - target) ** 2).mean(-1))
            logits.append(target @ constants[name]["logits"])
        evidence = {"teacher_logits": jnp.stack(logits, 1), "labels": batch["expression"]}
        return Outcome({}, moved(stats, features), jnp.stack(losses, 1), batch["mask"], evidence)

    def emotion(params, stats, constants, batch, context, train):
        features = batch["x"] @ params["backbone"]["w"]
        logits = features @ params["head"]["w"] + params["head"]["b"][None]
        term = Term(affect.cross_entropy(logits, batch["expression"]), batch["mask"])
        return Outcome({"emotion": term}, moved(stats, features) if train else stats)

    def predict(params, stats, constants, batch):
        logits = batch["x"] @ params["backbone"]["w"] @ params["head"]["w"] + params["head"]["b"][None]
        return {"student": Signals(logits=logits)}

    rate = optax.constant_schedule(0.05)
    phases = [
        Phase("distill", distill, {"backbone": 1.0, "adapters": 1.0}, steps[0], rate),
        Phase("classify", lambda *a: emotion(*a, train=False), {"head": 1.0}, steps[1], rate, scored=True),
        Phase(
            "finetune", lambda *a: emotion(*a, train=True), {"head": 1.0, "backbone": 0.1}, steps[2], rate, scored=True
        ),
    ]
    return Recipe(
        groups={"backbone": "backbone/.*", "head": "head/.*", "adapters": "adapters/.*"},
        phases=phases,
        init=init,
        constants=constants,
        predict=predict,
        teachers=teachers,
        weighting=chain or weighting.create(({"name": "relevance", "temperature": 1.0},)),
        extract=lambda params, stats: (params, stats),
        student_spec=None,
    )


def make_config() -> ml_collections.ConfigDict:
    config = defaults.run("test")
    config.batch_size = 16
    config.data.num_threads = 1
    config.evaluation = ml_collections.ConfigDict({"every_steps": 1})
    config.log.every_steps = 1
    config.checkpoint.min_seconds = 0.0
    return config


def make_examples(name: str, count: int) -> Examples:
    rng = np.random.default_rng(count)
    x = rng.normal(size=(count, INPUTS)).astype(np.float32)
    return Examples(
        name=name,
        keys=[f"{name}/{i}" for i in range(count)],
        columns={"expression": rng.integers(0, CLASSES, count).astype(np.int32)},
        classes={"expression": ("a", "b", "c")},
        inputs={"x": lambda i: x[i]},
        content=lambda i: f"{name}{i}",
    )


def make_splits() -> dict[str, Examples]:
    return {name: make_examples(name, count) for name, count in (("train", 37), ("validation", 11), ("test", 13))}
