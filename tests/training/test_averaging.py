"""The student's average against sums in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import assert_same, compiled_step

from emokd.training import averaging
from emokd.training.state import create_state, weights_for_use, which_move
from emokd.training.step import parameter_labels


def by_hand(values, decay):
    weights = decay ** np.arange(len(values) - 1, -1, -1, dtype=np.float64)
    return sum(w * np.asarray(v, np.float64) for w, v in zip(weights, values, strict=True)) / weights.sum()


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_the_average_weighs_steps_by_the_decay_and_lacks_no_weight_at_the_beginning(decay):
    rng = np.random.default_rng(0)
    rows = [{"w": {"w": rng.normal(size=(3,)).astype(np.float32), "n": np.int32(i)}} for i in range(6)]
    average = {"params": jax.tree.map(jnp.asarray, rows[0]), "stats": {}}
    for i, params in enumerate(rows[1:], 1):
        average = averaging.update(average, jax.tree.map(jnp.asarray, params), {}, jnp.asarray(i, jnp.int32), decay)
    expected = by_hand([row["w"]["w"] for row in rows[1:]], decay)
    np.testing.assert_allclose(average["params"]["w"]["w"], expected, rtol=1e-4, atol=1e-5)
    assert average["params"]["w"]["n"] == 5  # a count is not averaged


def test_the_steps_average_the_student_and_nothing_else_changes(recipe, config, batch):
    config.ema.decay = 0.5
    step = compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    seen = []
    for _ in range(3):
        state, _ = step(state, recipe.constants, batch, phase=0)
        seen.append((state.params["backbone"]["w"], state.stats["mean"]))
    params, stats = weights_for_use(state)
    for found, values in ((params["backbone"]["w"], 0), (stats["mean"], 1)):
        np.testing.assert_allclose(found, by_hand([pair[values] for pair in seen], 0.5), rtol=1e-5, atol=1e-6)
    assert_same(params["head"], state.params["head"])  # rests in this phase


def test_what_rests_of_the_average_is_not_moved_and_without_a_decay_there_is_none(recipe, config):
    labels = parameter_labels(recipe)
    abstract = jax.eval_shape(lambda: create_state(recipe, config, 3, jax.random.key(0)))
    assert abstract.average == {} and weights_for_use(abstract) == (abstract.params, abstract.stats)
    config.ema.decay = 0.9
    abstract = jax.eval_shape(lambda: create_state(recipe, config, 3, jax.random.key(0)))
    moves = which_move(abstract, labels, {"head"}).average
    assert moves["params"] == {
        "adapters": {"a": False, "b": False},
        "backbone": {"w": False},
        "head": {"b": True, "w": True},
    }
    assert moves["stats"] == {"mean": True}


def test_only_the_students_entries_are_averaged(recipe):
    params, stats = {"student": {"w": 0, "b": [1]}, "teachers": {"a": 2}}, {"student": {"m": 3}, "probes": {}}

    given = dataclasses.replace(recipe, extract=lambda params, stats: (params["student"], stats["student"]))
    assert averaging.create(given, 0.9, params, stats) == {
        "params": {"student": params["student"]},
        "stats": {"student": stats["student"]},
    }
