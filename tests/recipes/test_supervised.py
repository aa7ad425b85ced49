"""Supervised training: heads for each target, votes, valence and arousal, and what rests."""

import jax
import jax.numpy as jnp
import linear_networks
import numpy as np
import pytest
from linear_networks import LinearNetwork
from recipes_setup import SIZE

from emokd.configuration import defaults
from emokd.data.pipeline import train_batches
from emokd.errors import InputError
from emokd.losses import affect
from emokd.phase import Context
from emokd.recipes import find, supervised
from emokd.recipes.common import classification, views
from emokd.recipes.common.task import Task
from emokd.training.state import create_state, enter
from emokd.training.step import create_train_step, parameter_labels

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
HEADS = {"expression": 8, "valence_arousal": 2, "scene": 8}


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


def first_batch(examples):
    stream = train_batches(examples, batch_size=8, seed=0, canvas=SIZE, fit="crop", num_threads=0)
    return jax.tree.map(jnp.asarray, next(stream))


def linear_method(targets, loss="ccc", **changes):
    """The method with a linear student of these heads, and its parameters and statistics."""
    config = make_config(targets)
    config.affect_loss = loss
    config.update(changes)
    task = Task({"expression": tuple("abcdefgh"), "scene": tuple("abcdefgh")}, targets, {"labelled": 8}, 8)
    method = supervised.Supervised(
        config=config,
        student=LinearNetwork("student", 4, {name: HEADS[name] for name in targets}),
        draw_views=views.centre,
        cross_entropy=classification.create_cross_entropy(config, task),
        affect_loss=affect.AFFECT_LOSSES[loss],
    )
    params, stats = method.init(jax.random.key(0))
    return method, params, jax.tree.map(lambda x: x + 0.3, stats)


def ask(method, params, stats, batch, phase="train"):
    return getattr(method, phase)(params, stats, {}, batch, Context(jax.random.key(0)))


@pytest.mark.parametrize(("phase", "train"), [("head", False), ("train", True)])
def test_every_target_has_a_loss_on_the_rows_with_its_label(examples, phase, train):
    method, params, stats = linear_method(tuple(HEADS), "mse")
    batch = first_batch(examples)
    batch["expression"] = batch["expression"].at[2].set(-1)
    batch["valence_arousal"] = batch["valence_arousal"].at[4].set(jnp.nan)
    batch["mask"] = batch["mask"].at[7].set(False)
    outcome = ask(method, params, stats, batch, phase)
    _, outputs = linear_networks.answers(params["student"], stats["student"], batch, train=train)
    rows = np.arange(8) != 7
    assert set(outcome.terms) == set(HEADS) and set(outcome.metrics) == {"accuracy/expression", "accuracy/scene"}
    for name, labelled in (("expression", rows & (np.arange(8) != 2)), ("scene", rows)):
        np.testing.assert_array_equal(outcome.terms[name].rows, labelled)
        expected = linear_networks.cross_entropy(outputs[name], batch[name])
        np.testing.assert_allclose(outcome.terms[name].values, expected, **TOLERANCE)
    term, there = outcome.terms["valence_arousal"], rows & (np.arange(8) != 4)
    np.testing.assert_array_equal(term.rows, there)
    expected = ((outputs["valence_arousal"] - np.asarray(batch["valence_arousal"], np.float64)) ** 2).sum(1)
    np.testing.assert_allclose(np.asarray(term.values)[there], expected[there], **TOLERANCE)
    kept, own = stats["student"]["backbone"]["mean"], linear_networks.colours(batch).mean(0)
    moved = outcome.stats["student"]["backbone"]["mean"]
    np.testing.assert_allclose(moved, (kept + own) / 2 if train else kept, rtol=1e-5)


def test_a_backbone_that_rests_keeps_its_statistics(examples):
    method, params, stats = linear_method(("expression",), backbone_multiplier=0.0)
    outcome = ask(method, params, stats, first_batch(examples))
    jax.tree.map(np.testing.assert_array_equal, outcome.stats, stats)


def test_a_step_moves_the_heads_alone_or_everything(examples, monkeypatch):
    config = make_config(("expression", "scene"))
    config.phases.head.enabled = True
    monkeypatch.setattr(
        supervised, "create_student", lambda *_: LinearNetwork("student", 4, {"expression": 8, "scene": 8})
    )
    recipe = build(config, examples)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    before, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(examples)
    for phase, backbone in ((0, False), (1, True)):
        after, metrics = step(enter(before, phase), {}, batch, phase=phase)
        np.testing.assert_allclose(metrics["loss"], metrics["loss/expression"] + metrics["loss/scene"], rtol=1e-5)
        moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before.params, after.params)
        assert all(jax.tree.leaves(moved["student"]["heads"]))
        assert set(jax.tree.leaves(moved["student"]["backbone"])) == {backbone}
        moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before.stats, after.stats)
        assert set(jax.tree.leaves(moved)) == {backbone}


def test_heads_are_those_of_the_targets(examples):
    recipe = build(make_config(tuple(HEADS)), examples)
    assert recipe.student_spec.heads == HEADS


def test_unlabelled_valence_and_votes_do_not_count(examples):
    method, params, stats = linear_method(("expression", "valence_arousal"))
    votes = np.random.default_rng(0).dirichlet(np.ones(8), 8).astype(np.float32)
    votes[::2] = 0
    batch = first_batch(examples)
    batch["votes"] = jnp.asarray(votes)
    batch["valence_arousal"] = batch["valence_arousal"].at[1::2].set(jnp.nan)
    terms = ask(method, params, stats, batch).terms
    np.testing.assert_array_equal(terms["expression"].rows, np.arange(8) % 2 == 1)
    np.testing.assert_array_equal(terms["valence_arousal"].rows, np.arange(8) % 2 == 0)
    _, outputs = linear_networks.answers(params["student"], stats["student"], batch, train=True)
    logits = outputs["expression"]
    expected = -(votes * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)
    np.testing.assert_allclose(terms["expression"].values, expected, **TOLERANCE)
    assert np.isfinite(terms["valence_arousal"].values).all()


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "ccc", "pcc"])
def test_a_face_without_arousal_still_teaches_valence(examples, loss):
    """Its row counts, its value is that of valence alone, and no NaN reaches the gradients."""
    method, params, stats = linear_method(("valence_arousal",), loss)
    batch = first_batch(examples)
    target = np.array(batch["valence_arousal"])
    target[[1, 4], 1] = np.nan
    target[6] = np.nan
    batch["valence_arousal"] = jnp.asarray(target)
    given = ~np.isnan(target)

    def value(params, target):
        term = ask(method, params, stats, {**batch, "valence_arousal": target}).terms["valence_arousal"]
        return (term.values * term.cotangent).sum(), term

    compute = jax.jit(jax.value_and_grad(value, has_aux=True))
    (total, term), gradient = compute(params, batch["valence_arousal"])
    np.testing.assert_array_equal(np.asarray(term.rows), given.any(-1))
    assert np.isfinite(total) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    (_, fewer), _ = compute(params, jnp.where(jnp.asarray(given.all(-1))[:, None], target, jnp.nan))
    half, alike = given.sum(-1) == 1, given.all(-1)
    assert (np.asarray(term.values)[half] > 0).all() and (np.asarray(fewer.values)[half] == 0).all()
    if loss in ("mse", "smooth_l1"):
        np.testing.assert_allclose(np.asarray(term.values)[alike], np.asarray(fewer.values)[alike], rtol=1e-5)


def test_the_logged_accuracy_counts_labelled_rows_alone(examples):
    method, params, stats = linear_method(("expression", "scene"))
    batch = first_batch(examples)
    params["student"]["heads"]["expression"]["bias"] = 100.0 * jnp.eye(8)[2]  # class 2 of everything
    given = np.where(np.isin(np.arange(8), [0, 3, 5]), -1, 2)
    for labels, wanted in ((given, 1.0), (np.full(8, -1), 0.0), (np.arange(8) - 1, 1 / 7)):
        outcome = ask(method, params, stats, {**batch, "expression": jnp.asarray(labels, jnp.int32)})
        assert outcome.metrics["accuracy/expression"].mean() == pytest.approx(wanted)
        assert np.isfinite(outcome.terms["expression"].values).all()


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
