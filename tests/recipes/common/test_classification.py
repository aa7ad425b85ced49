"""The cross-entropy of a run: against PyTorch and scikit-learn, and that every recipe's networks pay it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipes_setup
import small_steps
from lazily import Lazily

from emokd.configuration import defaults
from emokd.data.tables.class_counts import class_counts
from emokd.errors import InputError
from emokd.losses import affect
from emokd.phase import Context
from emokd.recipes import find, smkd, supervised
from emokd.recipes.common import classification
from emokd.recipes.common.task import Task

torch = Lazily("torch")
F = Lazily("torch.nn.functional")
class_weight = Lazily("sklearn.utils.class_weight")

CLASSES = ("neutral", "happy", "sad", "fear", "contempt")
LABELS = np.repeat([0, 1, 2, 3], [40, 16, 7, 1])  # contempt has no example


def task_of(counts, classes=CLASSES):
    return Task({"expression": classes}, ("expression",), {"labelled": 64}, 8, {"expression": tuple(counts)})


def make_config(**changes):
    config = supervised.default_config()
    config.update(changes)
    return config


def expected_weights():
    """scikit-learn's, of the classes that occur; the other weighs nothing."""
    return np.append(class_weight.compute_class_weight("balanced", classes=np.arange(4), y=LABELS), 0.0)


def test_balanced_weights_are_scikit_learns_and_one_on_average():
    counts = np.bincount(LABELS, minlength=5).astype(float)
    found = np.array(classification.class_weights("balanced", counts))
    np.testing.assert_allclose(found, expected_weights())
    assert found[LABELS].mean() == pytest.approx(1)
    np.testing.assert_allclose((found * counts)[:4], 64 / 4)  # every class has the same share
    votes = np.random.default_rng(0).dirichlet([0.5, 0.2, 0.1, 0.02], 300)
    found = np.array(classification.class_weights("balanced", votes.sum(0)))
    assert (votes * found[None]).sum(1).mean() == pytest.approx(1)
    assert classification.class_weights("none", counts) is None
    assert classification.class_weights("balanced", (0.0, 0.0)) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("name", ["none", "balanced"])
@pytest.mark.parametrize("kind", ["ids", "votes"])
def test_the_cross_entropy_of_a_run_is_pytorchs(kind, name, smoothing):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(9, 5)).astype(np.float32)
    ids = np.array([0, 1, 2, 3, 3, 0, 1, 2, 0])
    given = ids if kind == "ids" else rng.dirichlet(np.ones(5), 9)
    weight = torch.tensor(expected_weights()) if name == "balanced" else None
    expected = F.cross_entropy(
        torch.tensor(logits, dtype=torch.float64),
        torch.tensor(given),
        weight=weight,
        label_smoothing=smoothing,
        reduction="none",
    ).numpy()
    expected[4] = 0
    labels = np.where(np.arange(9) == 4, -1, ids).astype(np.int32)
    if kind == "votes":
        labels = np.where(np.arange(9)[:, None] == 4, 0, given).astype(np.float32)
    counts = np.bincount(LABELS, minlength=5)
    config = make_config(class_weights=name, label_smoothing=smoothing)
    cross_entropy = classification.create_cross_entropy(config, task_of(counts))
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_smoothing_is_at_least_0_and_below_1(value):
    with pytest.raises(InputError, match="config.label_smoothing must be at least 0 and below 1"):
        classification.create_cross_entropy(make_config(label_smoothing=value), task_of((1, 2, 3, 4, 5)))


def test_unknown_weights_and_weights_without_classes_are_refused():
    with pytest.raises(InputError, match="config.class_weights is 'balance'.*Did you mean 'balanced'"):
        classification.create_cross_entropy(make_config(class_weights="balance"), task_of((1, 2, 3, 4, 5)))
    affect_alone = Task({}, ("valence_arousal",), {"labelled": 64}, 8)
    with pytest.raises(InputError, match="config.class_weights is 'balanced'.*no classes.*set it to 'none'"):
        classification.create_cross_entropy(make_config(class_weights="balanced"), affect_alone)


def test_what_has_no_training_example_is_named_once():
    counts = (40, 16, 7, 0, 0)
    for name in ("none", "balanced"):
        [text] = classification.concerns(make_config(class_weights=name), task_of(counts))
        assert "expression fear, contempt" in text and ("weight is 0" in text) == (name == "balanced")
    assert classification.concerns(make_config(class_weights="balanced"), task_of((40, 16, 7, 1, 1))) == []
    assert classification.concerns(make_config(), Task({}, ("valence_arousal",), {"labelled": 64}, 8)) == []


def test_smoothing_that_outweighs_a_label_is_said_with_what_does_not():
    task = task_of((1000, 100, 100, 100, 1))
    config = make_config(class_weights="balanced", label_smoothing=0.1)
    [text] = classification.concerns(config, task)
    assert "neutral teach contempt" in text
    safe = float(text.split("config.label_smoothing to ")[1].split()[0])

    def target(smoothing):
        """What an example of neutral teaches: the logits that have the least loss, in proportion."""
        config.label_smoothing = smoothing
        loss = classification.create_cross_entropy(config, task)
        slope = jax.grad(lambda z: loss(z, jnp.array([0])).sum())(jnp.zeros((1, 5)))[0]
        return np.asarray(-slope)

    assert target(0.1).argmax() == 4 and target(safe).argmax() == 0 and safe > 0.004
    config.label_smoothing = safe
    assert classification.concerns(config, task) == []


def count_of(examples, column="expression"):
    return tuple(np.bincount(examples.columns[column][examples.columns[column] >= 0], minlength=8).tolist())


def watch(monkeypatch):
    """Every call of the cross-entropy from now on: (class_weights, label_smoothing)."""
    calls, original = [], affect.cross_entropy

    def watched(logits, labels, *, label_smoothing=0.0, class_weights=None):
        calls.append((class_weights, label_smoothing))
        return original(logits, labels, label_smoothing=label_smoothing, class_weights=class_weights)

    monkeypatch.setattr(affect, "cross_entropy", watched)
    return calls


def trace(recipe, phase, batch):
    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    return jax.eval_shape(phase.objective, params, stats, recipe.constants, batch, Context(jax.random.key(1)))


# How many networks answer in each phase; SMKD's distillation and the T-Nets have no labels.
ANSWERS = {
    "supervised": {"train": 1},
    "bounded": {"distill": 1},
    "smkd": {"probe": 2, "distill": 0, "classify": 1, "finetune": 1},
    "mtpkdot": {"teach": 3, "joint": 1, "hallucinate": 0, "align": 4, "student": 1},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_network_that_a_recipe_trains_has_the_weights_and_the_smoothing(name, monkeypatch):
    config, task, models, data = small_steps.ingredients(name)
    config.class_weights, config.label_smoothing = "balanced", 0.25
    counts = {"expression": class_counts(data)}
    recipe = find(name).build(config, dataclasses.replace(task, counts=counts), models)
    present = data.columns["expression"][data.columns["expression"] >= 0]
    occurring = np.unique(present)
    weights = np.zeros(len(data.classes["expression"]))
    weights[occurring] = class_weight.compute_class_weight("balanced", classes=occurring, y=present)
    assert len(set(weights)) > 1
    calls, batch, found = watch(monkeypatch), small_steps.batch_of(data), {}
    for phase in recipe.phases:
        calls.clear()
        trace(recipe, phase, batch)
        found[phase.name] = len(calls)
        for own, smoothing in calls:
            np.testing.assert_allclose(own, weights)
            assert smoothing == 0.25
    assert found == ANSWERS[name]


def test_columns_have_the_weights_of_their_own_classes(examples, monkeypatch):
    """A teacher that learns scenes is weighed by scenes, and its probe by expressions; the same in `supervised`."""
    counts = {"expression": (8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), "scene": (1.0,) * 7 + (17.0,)}
    sizes = {"labelled": 24, "all": 24}
    task = Task(examples.classes, tuple(examples.columns), sizes, 8, counts)
    config = recipes_setup.make_config()
    for name in ("one", "two"):
        del config.teachers[name]
    config.teachers.scenes = defaults.teacher("basic_cnn", task="scene", width=2, size=recipes_setup.SIZE)
    config.class_weights = "balanced"
    other = supervised.default_config()
    other.update({"targets": ("expression", "scene"), "class_weights": "balanced", "batch_size": 8})
    other.student = defaults.network("basic_cnn", size=recipes_setup.SIZE, width=2)
    calls = watch(monkeypatch)
    batch = small_steps.batch_of(examples)
    recipe = smkd.build(config, task, {})
    for phase in recipe.phases[:2]:
        trace(recipe, phase, batch)
    recipe = supervised.build(other, task, {})
    trace(recipe, recipe.phases[0], batch)
    expected = {
        column: class_weight.compute_class_weight(
            "balanced", classes=np.arange(8), y=np.repeat(range(8), np.array(values, int))
        )
        for column, values in counts.items()
    }
    wanted = [expected[column] for column in ("scene", "expression", "expression", "scene")]
    np.testing.assert_allclose([own for own, _ in calls], wanted)


def test_counts_are_of_labelled_rows_and_of_votes_as_fractions(examples):
    expression = examples.columns["expression"].copy()
    expression[::3] = -1
    some = dataclasses.replace(examples, columns={**examples.columns, "expression": expression})
    assert class_counts(some) == count_of(some) and class_counts(some, "scene") == count_of(some, "scene")
    votes = np.random.default_rng(0).dirichlet(np.ones(8), len(examples)).astype(np.float32)
    votes[::3] = 0
    voted = dataclasses.replace(examples, columns={"votes": votes})
    np.testing.assert_allclose(class_counts(voted), votes.astype(np.float64).sum(0))
    assert class_counts(voted, "scene") == (0.0,) * 8
