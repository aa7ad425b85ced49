"""AEKD in SMKD's distill phase: its weights against SLSQP, its gradient against their mixture of the teachers'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from linear_networks import LinearNetwork, trained
from recipes_setup import build, make_config
from scipy import optimize
from smkd_jobs_setup import CLASSES, first_batch

from emokd.configuration import defaults
from emokd.recipes import smkd
from emokd.training.state import create_state
from emokd.training.step import create_train_step, parameter_labels


def shortest_mixture(gradients, bound):
    """AEKD's weights by SLSQP in float64, from gradients [K, anything]."""
    rows = np.asarray(gradients, np.float64).reshape(len(gradients), -1)
    gram = rows @ rows.T
    gram = gram / np.trace(gram)
    found = optimize.minimize(
        lambda a: a @ gram @ a / 2,
        np.full(len(gram), 1 / len(gram)),
        jac=lambda a: gram @ a,
        bounds=[(0, bound)] * len(gram),
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


def random_state(recipe, config):
    """A state of the recipe, drawn in NumPy: nothing is compiled."""
    abstract = jax.eval_shape(lambda key: create_state(recipe, config, CLASSES, key), jax.random.key(0))
    rng = np.random.default_rng(3)

    def filled(tree, low, high):
        return jax.tree.map(lambda x: jnp.asarray(rng.uniform(low, high, x.shape), x.dtype), tree)

    ranges = {"params": (-0.4, 0.6), "stats": (0.5, 1.5)}
    names = [part.name for part in dataclasses.fields(abstract) if part.name != "key"]
    parts = {name: filled(getattr(abstract, name), *ranges.get(name, (0, 0))) for name in names}
    return dataclasses.replace(abstract, key=jax.random.key(0), **parts)


def test_aekd_weighs_teachers_by_the_shortest_mixture_of_their_gradients(examples, monkeypatch):
    config = make_config()
    names = ("one", "three", "two")
    teachers = [trained(LinearNetwork(name, 3, {}), seed) for seed, name in enumerate(names)]
    student = LinearNetwork("student", 4, {"expression": CLASSES})
    monkeypatch.setattr(smkd, "create_teachers", lambda *_: teachers)
    monkeypatch.setattr(smkd, "create_student", lambda *_: student)
    config.teachers.three = defaults.teacher("basic_cnn", checkpoint="unused")
    config.weighting = ({"name": "aekd", "bound": 0.4},)
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0})
    config.phases.probe.enabled = False
    config.phases.distill = defaults.phase(steps=1, learning_rate=1.0, warmup_percent=0.0, schedule="constant")
    recipe = build(config, {}, examples)
    state = random_state(recipe, config)
    rows = np.arange(config.batch_size) != 2
    batch = {**first_batch(examples, config), "mask": jnp.asarray(rows)}
    counts = jnp.asarray(rows / rows.sum(), jnp.float32)

    def losses(features, adapters, targets):
        """Each teacher's, over the rows that count."""
        maps = [features @ adapters[name]["kernel"] + adapters[name]["bias"][None] for name in names]
        return jnp.stack([(((m - z) ** 2).mean(-1) * counts).sum() for m, z in zip(maps, targets, strict=True)])

    def of_parameters(params, stats, choice):
        targets = []
        for teacher in teachers:
            signals, _ = teacher.signals(teacher.model.params, teacher.model.stats, batch, None)
            scale = stats["standardizer"][teacher.name]
            targets.append((signals.features - scale["mean"][None]) / scale["std"][None])
        signals, _ = student.signals(params["student"], stats["student"], batch, None, train=True)
        return (losses(signals.features, params["adapters"], targets) * choice).sum(), (signals.features, targets)

    gradient, choices = jax.jit(jax.grad(of_parameters, has_aux=True)), np.eye(3, dtype=np.float32)
    found = [gradient(state.params, state.stats, choice) for choice in choices]
    by_parameters, ((features, targets), *_) = zip(*found, strict=True)
    by_features = [
        jax.grad(lambda f, choice: (losses(f, state.params["adapters"], targets) * choice).sum())(features, choice)
        for choice in choices
    ]
    expected = shortest_mixture(by_features, 0.4)
    assert np.isclose(expected, 0.4).any() and np.ptp(expected) > 0.01

    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    after, metrics = step(state, recipe.constants, batch, phase=0)
    np.testing.assert_allclose([metrics[f"weight/{name}"] for name in names], expected, atol=1e-4)
    taken = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, after.params)
    mixed = jax.tree.map(lambda *g: np.tensordot(expected, np.stack(g), 1), *by_parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), taken, mixed)
    assert all(map(np.any, jax.tree.leaves((taken["student"]["backbone"], taken["adapters"]))))
    assert not any(map(np.any, jax.tree.leaves((taken["student"]["heads"], taken["probes"]))))
    labels = np.asarray(batch["expression"])[rows]
    np.testing.assert_array_equal(after.tally["rows"], [*np.bincount(labels, minlength=CLASSES), 0])
    np.testing.assert_allclose(after.tally["weights"], after.tally["rows"][:, None] * expected[None], atol=5e-4)
