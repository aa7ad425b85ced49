"""A student that learns to compute in integers: its ranges, what moves, what is scored, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes_setup import SIZE

from emokd.configuration import defaults
from emokd.data import sources
from emokd.data.pipeline import evaluation_batches, train_batches
from emokd.errors import InputError
from emokd.models import rounding
from emokd.models.network import functional
from emokd.phase import Context
from emokd.recipes import bounded, smkd, supervised
from emokd.recipes.common import quantizing
from emokd.recipes.common.task import Task
from emokd.recipes.common.views import centre, see
from emokd.training.selection import Best
from emokd.training.sharding import create_mesh, put_batch
from emokd.training.state import create_state
from emokd.training.step import create_train_step, parameter_labels

PAINTER = {"size": SIZE, "train": 24, "validation": 8, "test": 9, "seed": 0}


def make_config(recipe=supervised, **student):
    config = recipe.default_config()
    config.batch_size = 8
    config.data.canvas = SIZE
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    config.student.update({"quantized": True, **student})
    for name in config.phases:
        enabled = config.phases[name].enabled
        config.phases[name] = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0, enabled=enabled)
    config.start_from = "runs/before"
    return config


def build(config, examples, recipe=supervised):
    task = Task(
        examples.classes, tuple(examples.columns), dict.fromkeys(("labelled", "all"), len(examples)), config.batch_size
    )
    return recipe.build(config, task, {})


@pytest.fixture(scope="module")
def examples():
    return sources.load("painter", "", PAINTER)


@pytest.fixture(scope="module")
def learning(examples):
    """(the recipe, the state before the phase, the state with its ranges, the state after a step)."""
    config = make_config()
    recipe = build(config, examples)
    state = create_state(recipe, config, 8, jax.random.key(0))
    batches = evaluation_batches(examples, batch_size=8, canvas=SIZE, fit="crop", num_threads=0)
    (phase,) = recipe.phases
    params, stats = phase.prepare(state.params, state.stats, {}, [jax.tree.map(jnp.asarray, b) for b in batches])
    prepared = dataclasses.replace(state, params=params, stats=stats)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    stream = train_batches(examples, batch_size=8, seed=0, canvas=SIZE, fit="crop", num_threads=0)
    batch = jax.tree.map(jnp.asarray, next(stream))
    return recipe, state, prepared, step(prepared, {}, batch, phase=0)[0], batch


def test_ranges_are_the_extremes_over_all_examples_and_devices_without_padding():
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    mask = np.arange(20) != 7
    values[7] = 1000.0  # padding
    mesh = create_mesh(4)

    def look(weights, batch):
        rounding.activation(batch["x"] * weights)
        rounding.activation(batch["x"] ** 2)

    batches = [put_batch({"x": values[i : i + 4], "mask": mask[i : i + 4]}, mesh) for i in range(0, 20, 4)]
    found = quantizing.take_ranges(look, jnp.asarray(-2.0), batches)
    kept = values[mask]
    expected = [[(-2 * kept).min(), (-2 * kept).max()], [(kept**2).min(), (kept**2).max()]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
def test_ranges_that_are_not_finite_are_refused(value):
    def look(weights, batch):
        rounding.activation(batch["x"])

    batch = {"x": jnp.asarray([[1.0], [value]]), "mask": jnp.ones(2, bool)}
    with pytest.raises(InputError, match="not finite on the training set"):
        quantizing.take_ranges(look, (), [batch])
    with pytest.raises(InputError, match="no training example"):
        quantizing.take_ranges(look, (), [{**batch, "mask": jnp.zeros(2, bool)}])


def test_the_phase_moves_every_parameter_and_no_statistic(learning):
    _, before, prepared, after, _ = learning
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), prepared.params, after.params)
    assert all(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, prepared.stats, after.stats)
    assert not np.any(before.stats["student"]["ranges"])
    low, high = np.asarray(prepared.stats["student"]["ranges"]).T
    assert (high > low).all()


def test_scores_are_those_of_floating_point_until_the_ranges_are_taken(learning):
    recipe, before, prepared, _, batch = learning
    student = prepared.params["student"], prepared.stats["student"]
    predict = jax.jit(lambda state: recipe.predict(state.params, state.stats, {}, batch)["student"].logits)
    found = [predict(dataclasses.replace(state, key=None)) for state in (before, prepared)]
    network, pictures = functional(recipe.student_spec), see(recipe.student_spec, batch, centre(batch))
    look = jax.jit(lambda weights, integers: network(*weights, pictures, integers=integers)[0].logits, static_argnums=1)
    wanted = [look(student, integers) for integers in (False, True)]
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-5


def test_earlier_steps_no_longer_compete():
    best = Best().improved(5, 0.9).ended("head", 5).begun(anew=True)
    assert (best.step, best.score, best.stopped) == (-1, float("-inf"), {"head": 5})
    assert Best().improved(5, 0.9).begun().step == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "bfloat16"}, "precision=bfloat16, in which"),
        ({"remat": True}, "remat=True, which"),
        ({"baseline.enabled": True}, "baseline.enabled=True, whose"),
        ({"backbone_multiplier": 0.0}, "backbone_multiplier=0, with"),
        ({"start_from": ""}, "'train' begins with a fresh network.*config.start_from"),
        ({"student.backbone": "efficientnet_b0", "student.options": {}}, "efficientnet_b0 cannot learn"),
    ],
)
def test_what_does_not_go_with_it_is_refused(examples, changes, said):
    config = make_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=said):
        build(config, examples)


@pytest.mark.parametrize(("recipe", "last"), [(smkd, "finetune"), (bounded, "distill"), (supervised, "train")])
def test_it_is_the_last_phase_of_each_recipe(examples, recipe, last):
    batch = next(evaluation_batches(examples, batch_size=8, canvas=SIZE, fit="crop", num_threads=0))
    batch = {name: jnp.asarray(values) for name, values in {**batch, "view": batch["id"] * 0}.items()}
    for quantized in (True, False):
        config = make_config(recipe, quantized=quantized)
        if recipe is smkd:
            config.phases.distill.enabled = False
        built = build(config, examples, recipe)
        assert built.phases[-1].name == last
        params, stats = jax.eval_shape(built.init, jax.random.key(0))
        for phase in built.phases:
            in_integers = quantized and phase.name == last
            assert phase.selects_anew == in_integers
            assert phase.prepare is not None or not in_integers
            traced = jax.make_jaxpr(phase.objective)(params, stats, {}, batch, Context(jax.random.key(0)))
            assert ("uint8_and_back" in str(traced)) == in_integers


def test_a_recipe_that_never_quantises_is_refused(examples):
    config = make_config()
    config.phases.head.enabled, config.phases.train.enabled = True, False
    with pytest.raises(InputError, match=r"none of the phases of this run \(head\)"):
        build(config, examples)
