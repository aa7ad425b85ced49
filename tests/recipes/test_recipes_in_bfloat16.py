"""Recipes in bfloat16 against float32: what they compute, in what, and what must not change."""

import functools

import jax
import jax.numpy as jnp
import mtpkdot_tables
import numpy as np
import pytest
import recipes_setup
from jax.extend import core
from random_state import random_state

from emokd.data import sources
from emokd.data.pipeline import train_batches
from emokd.errors import InputError
from emokd.recipes.common import views
from emokd.recipes.common.task import Task
from emokd.recipes.common.teachers import create_teachers
from emokd.training.state import create_state
from emokd.training.step import create_train_step, gradients, parameter_labels

HALF, SINGLE, HIGHEST = jnp.dtype("bfloat16"), jnp.dtype("float32"), jax.lax.Precision.HIGHEST


def faces():
    config = recipes_setup.make_config()
    return sources.load("painter", "", config.data.options)


def smkd_of(precision):
    config = recipes_setup.make_config()
    config.precision = precision
    return config, recipes_setup.build(config, recipes_setup.make_models(), faces())


def face_batch(config):
    stream = train_batches(
        faces(), batch_size=config.batch_size, seed=0, canvas=config.data.canvas, fit="crop", num_threads=0
    )
    return jax.tree.map(jnp.asarray, next(stream))


def mtpkdot_of(precision):
    config = mtpkdot_tables.make_config()
    config.precision, config.weighting = precision, ({"name": "uniform"},)
    return config, mtpkdot_tables.build(config, mtpkdot_tables.make_examples())


def table_batch(config):
    return mtpkdot_tables.batches(mtpkdot_tables.make_examples(), config)[0]


def found_by(recipe, config, batch, phase):
    """(gradients, losses) of a phase, from a random state."""
    labels, classes = parameter_labels(recipe), 8 if "image" in batch else 3
    state = random_state(recipe, config, classes)

    def compute(state, batch):
        grads, outcome, *_ = gradients(recipe, recipe.phases[phase], labels, state, recipe.constants, batch)
        terms = {name: term.values for name, term in outcome.terms.items()}
        return grads, (terms, outcome.teacher_losses), outcome.stats

    return jax.jit(compute)(state, batch)


def distance(a, b) -> float:
    """|a - b| / |b| of two trees."""
    difference = sum(float(((x - y) ** 2).sum()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return (difference / sum(float((y**2).sum()) for y in jax.tree.leaves(b))) ** 0.5


@pytest.mark.parametrize(
    ("make", "take", "phase"),
    [
        pytest.param(smkd_of, face_batch, 1, id="smkd"),
        pytest.param(mtpkdot_of, table_batch, -1, id="mtpkdot", marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients_are_near_those_of_float32(make, take, phase):
    (config, exact), (_, half) = make("float32"), make("bfloat16")
    batch = take(config)
    expected, found = (found_by(recipe, config, batch, phase) for recipe in (exact, half))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {SINGLE}
    assert 0 < distance(found[1], expected[1]) < 0.03
    # BatchNorm over eight positions, as in these small pictures, magnifies rounding; a wrong gradient is 1 or more off.
    assert 0 < distance(found[0], expected[0]) < 0.3


def products(jaxpr: core.Jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


def step_products(recipe, config, batch, phase):
    """Matrix products of a whole step, and the dtypes of the state that comes out."""
    classes = 8 if "image" in batch else 3
    state = jax.eval_shape(functools.partial(create_state, recipe, config, classes), jax.random.key(0))
    step = functools.partial(create_train_step(recipe, config, parameter_labels(recipe)), phase=phase)
    jaxpr, (after, _) = jax.make_jaxpr(step, return_shape=True)(state, recipe.constants, batch)
    floats = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
    return list(products(jaxpr.jaxpr)), {x.dtype for x in floats}


@pytest.mark.parametrize(("phase", "rows"), [(4, 12), (2, 24)], ids=["transport", "mmd"])
def test_relations_between_examples_are_computed_in_float32(phase, rows):
    """Who resembles whom is [G, B, B], the discrepancy's kernels [G, 2 B, 2 B]; no other product has these shapes."""
    config, recipe = mtpkdot_of("bfloat16")
    found, dtypes = step_products(recipe, config, table_batch(config), phase)
    assert dtypes == {SINGLE}
    relations = [e for e in found if e.outvars[0].aval.shape[-2:] == (rows, rows)]
    assert relations
    for equation in relations:
        assert {v.aval.dtype for v in equation.invars} == {SINGLE}
        assert equation.params["precision"] in (HIGHEST, (HIGHEST, HIGHEST))
    networks = [e for e in found if {v.aval.dtype for v in e.invars} == {HALF}]
    assert len(networks) > 10


def test_a_step_keeps_the_state_in_float32_and_lets_rest_what_rests():
    config, recipe = smkd_of("bfloat16")
    batch = face_batch(config)
    state = random_state(recipe, config, 8)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    after, _ = step(state, recipe.constants, batch, phase=2)  # the classifier on resting features
    floats = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {SINGLE}
    assert mtpkdot_tables.same(after.params["student"]["backbone"], state.params["student"]["backbone"])
    assert mtpkdot_tables.same(after.stats, state.stats)
    assert not mtpkdot_tables.same(after.params["student"]["heads"], state.params["student"]["heads"])


def test_a_cached_teacher_says_what_a_live_one_says():
    config = recipes_setup.make_config()
    config.precision = "bfloat16"
    task = Task({"expression": ("no", "yes")}, ("expression",), {"labelled": 24}, config.batch_size)
    (teacher, _), batch = create_teachers(config, task, recipes_setup.make_models()), face_batch(config)
    weights = teacher.model.params, teacher.model.stats
    live, _ = jax.jit(teacher.signals)(*weights, batch, views.centre(batch))
    assert live.features.dtype == SINGLE
    read, _ = teacher.signals(*weights, {**batch, "features/one": live.features}, views.centre(batch))
    for answer in (lambda signals: signals.features, lambda signals: signals.intermediates["pretrained"]):
        np.testing.assert_allclose(answer(read), answer(live), rtol=1e-5, atol=1e-6)


def test_another_precision_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="config.precision is 'bfloat61'. Did you mean 'bfloat16'"):
        mtpkdot_of("bfloat61")
