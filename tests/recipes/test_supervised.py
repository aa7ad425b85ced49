"""Supervised training: heads for each target, votes, valence and arousal, and what rests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes_setup import SIZE

from emokd.configuration import defaults
from emokd.data.pipeline import train_batches
from emokd.errors import InputError
from emokd.phase import Context
from emokd.recipes import find, supervised
from emokd.recipes.common.task import Task
from emokd.training.state import create_state
from emokd.training.step import create_train_step, parameter_labels


def make_config(targets):
    config = supervised.default_config()
    config.batch_size = 8
    config.targets = targets
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


def build(config, examples):
    task = Task(examples.classes, tuple(examples.columns), {"labelled": len(examples)}, config.batch_size)
    return supervised.build(config, task, {})


def first_batch(examples, config):
    stream = train_batches(examples, batch_size=config.batch_size, seed=0, canvas=SIZE, fit="crop", num_threads=0)
    return jax.tree.map(jnp.asarray, next(stream))


def test_one_head_per_target_and_each_learns(examples):
    config = make_config(("expression", "valence_arousal", "scene"))
    config.phases.head.enabled = False
    recipe = build(config, examples)
    assert recipe.student_spec.heads == {"expression": 8, "valence_arousal": 2, "scene": 8}
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    before = create_state(recipe, config, 8, jax.random.key(config.seed))
    after, metrics = step(before, {}, first_batch(examples, config), phase=0)
    assert {"loss/expression", "loss/valence_arousal", "loss/scene", "accuracy/scene"} <= set(metrics)
    total = sum(metrics[f"loss/{t}"] for t in config.targets)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    for name in config.targets:
        old, new = before.params["student"]["heads"][name], after.params["student"]["heads"][name]
        assert (np.asarray(old["kernel"]) != np.asarray(new["kernel"])).any()


def test_the_head_phase_leaves_the_backbone_alone(examples):
    config = make_config(("expression",))
    recipe = build(config, examples)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    before = create_state(recipe, config, 8, jax.random.key(config.seed))
    after, _ = step(before, {}, first_batch(examples, config), phase=0)
    for old, new in zip(
        jax.tree.leaves((before.params["student"]["backbone"], before.stats)),
        jax.tree.leaves((after.params["student"]["backbone"], after.stats)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)


def test_unlabelled_valence_and_votes_do_not_count(examples):
    rng = np.random.default_rng(0)
    votes = rng.dirichlet(np.ones(8), len(examples)).astype(np.float32)
    votes[::2] = 0
    affect = examples.columns["valence_arousal"].copy()
    affect[1::2] = np.nan
    columns = {"votes": votes, "valence_arousal": affect}
    mixed = dataclasses.replace(examples, columns=columns, classes={"expression": examples.classes["expression"]})
    config = make_config(("expression", "valence_arousal"))
    recipe = build(config, mixed)
    state = create_state(recipe, config, 8, jax.random.key(config.seed))
    outcome = recipe.phases[1].objective(
        state.params, state.stats, {}, first_batch(mixed, config), Context(jax.random.key(0))
    )
    expression, valence = outcome.terms["expression"], outcome.terms["valence_arousal"]
    np.testing.assert_array_equal(np.asarray(expression.rows), ~np.asarray(valence.rows))
    assert not np.isnan(np.asarray(expression.values)).any() and not np.isnan(np.asarray(valence.values)).any()


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "ccc", "pcc"])
def test_a_face_without_arousal_still_teaches_valence(examples, loss):
    """Its row counts, its value is that of valence alone, and no NaN reaches the gradients."""
    few = examples.select(np.arange(8))
    affect = few.columns["valence_arousal"].copy()
    affect[[1, 4], 1] = np.nan
    affect[6] = np.nan
    data = dataclasses.replace(few, columns={"valence_arousal": affect}, classes={})
    config = make_config(("valence_arousal",))
    config.affect_loss = loss
    recipe = build(config, data)
    state, batch = create_state(recipe, config, 0, jax.random.key(config.seed)), first_batch(data, config)
    target = np.asarray(batch["valence_arousal"], np.float64)
    given = ~np.isnan(target)
    assert sorted(given.sum(-1)) == [0, 1, 1, 2, 2, 2, 2, 2]

    def value(params, objective):
        term = objective(params, state.stats, {}, batch, Context(jax.random.key(0))).terms["valence_arousal"]
        return (term.values * term.cotangent).sum(), term

    objective = recipe.phases[0].objective
    (total, term), gradient = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)(
        state.params, objective
    )
    np.testing.assert_array_equal(np.asarray(term.rows), given.any(-1))
    assert np.isfinite(total) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    without = {
        **batch,
        "valence_arousal": jnp.where(jnp.asarray(given.all(-1))[:, None], batch["valence_arousal"], jnp.nan),
    }
    fewer = objective(state.params, state.stats, {}, without, Context(jax.random.key(0))).terms["valence_arousal"]
    half = given.sum(-1) == 1
    assert (np.asarray(term.values)[half] > 0).all() and (np.asarray(fewer.values)[half] == 0).all()
    if loss in ("mse", "smooth_l1"):
        alike = given.all(-1)
        np.testing.assert_allclose(np.asarray(term.values)[alike], np.asarray(fewer.values)[alike], rtol=1e-5)


def test_the_logged_accuracy_counts_labelled_rows_alone(examples):
    config = make_config(("expression", "scene"))
    few = examples.select(np.arange(8))
    labels = few.columns["expression"].copy()
    labels[[0, 3, 5]] = -1
    data = dataclasses.replace(few, columns={**few.columns, "expression": labels})
    config.phases.head.enabled = True
    recipe = build(config, data)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    # Fresh heads with a large bias say class 2 of everything.
    state.params["student"]["heads"]["expression"]["bias"] = 100.0 * jnp.eye(8)[2]
    given = np.asarray(batch["expression"])
    for labels, wanted in ((np.where(given >= 0, 2, -1), 1.0), (np.full(8, -1), 0.0), (np.arange(8) - 1, 1 / 7)):
        _, metrics = step(state, {}, {**batch, "expression": jnp.asarray(labels, jnp.int32)}, phase=0)
        assert metrics["accuracy/expression"] == pytest.approx(wanted)
        assert np.isfinite([float(value) for value in metrics.values()]).all()


@pytest.mark.parametrize(
    ("targets", "message"),
    [(("expresion",), "Did you mean 'expression'"), (("gender",), "The data has")],
)
def test_a_target_that_the_data_lacks_is_an_error(examples, targets, message):
    with pytest.raises(InputError, match=message):
        build(make_config(targets), examples)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'supervised'"):
        find("supervized")
