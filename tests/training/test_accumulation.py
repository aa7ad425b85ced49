"""Gradient accumulation: a step in microbatches is the whole batch's step, and is refused where it could not be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.errors import InputError
from emokd.phase import Context
from emokd.training.accumulation import join, split
from emokd.training.sharding import check_batch_size, create_mesh, put_batch, replicated
from emokd.training.state import create_state
from emokd.training.step import create_train_step, gradients, parameter_labels
from emokd.weighting import chain as weighting

CHAIN = ({"name": "relevance", "temperature": 0.7}, {"name": "smooth", "decay": 0.5})


@pytest.fixture
def uneven(batch):
    """Of 4 microbatches the first has no row that counts, and the others have not equally many."""
    mask = np.ones(16, bool)
    mask[[0, 4, 8, 12, 1, 5, 2]] = False
    return {**batch, "mask": jnp.asarray(mask)}


def assert_close(a, b, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def states(recipe, config):
    return create_state(recipe, config, 3, jax.random.key(config.seed))


def steps(recipe, config, batch, count, phases=(0, 0, 2)):
    """The state and the metrics after a few steps with `count` microbatches."""
    config.accumulate = count
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    state, metrics = states(recipe, config), None
    for phase in phases:
        state, metrics = step(state, recipe.constants, batch, phase=phase)
    return jax.device_get(dataclasses.replace(state, key=0)), jax.device_get(metrics)


def with_chain(recipe, chain):
    return dataclasses.replace(recipe, weighting=weighting.create(chain))


@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("phase", [0, 2])
def test_gradients_are_the_whole_batchs(recipe, config, uneven, phase, count):
    state, labels = states(recipe, config), parameter_labels(recipe)
    whole, parts = (
        gradients(recipe, recipe.phases[phase], labels, state, recipe.constants, uneven, n) for n in (1, count)
    )
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(whole[0]))
    assert_close(parts[0], whole[0])
    values = [
        (o.terms, o.teacher_losses, o.rows, o.evidence, o.metrics) for o in (parts[1], whole[1])
    ]  # in the batch's order
    assert_close(*values)


@pytest.mark.parametrize("chain", [CHAIN, ({"name": "most_confident", "per": "batch"},)], ids=["smooth", "batch"])
def test_steps_are_the_whole_batchs_and_the_weighting_is_asked_once(recipe, config, uneven, chain):
    recipe = with_chain(recipe, chain)
    whole, parts = (steps(recipe, config, uneven, count) for count in (1, 4))
    assert_close(parts, whole, rtol=2e-4, atol=1e-6)
    if chain is CHAIN:
        assert int(parts[0].weighting[1].batches) == 2  # the two steps with teachers


def test_one_and_eight_devices_agree(recipe, config, uneven):
    config.accumulate = 2
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    results = []
    for devices in (1, 8):
        mesh = create_mesh(devices)
        state = jax.device_put(states(recipe, config), replicated(mesh))
        rows = put_batch({name: np.asarray(values) for name, values in uneven.items()}, mesh)
        state, metrics = step(state, jax.device_put(recipe.constants, replicated(mesh)), rows, phase=0)
        results.append(jax.device_get((state.params, state.stats, metrics)))
    assert_close(*results, rtol=1e-4, atol=1e-6)


def test_a_block_of_rows_on_each_device_gives_to_every_microbatch():
    parts = split({"x": np.arange(16)}, 2)
    for part in parts:
        assert {int(x) // 4 for x in part["x"]} == {0, 1, 2, 3}  # with 4 devices of 4 rows
    assert sorted(int(x) for part in parts for x in part["x"]) == list(range(16))


def test_statistics_move_by_the_mean_move_and_rest_bit_for_bit(recipe, config, batch):
    """The linear recipe keeps a running mean of the features: equal microbatches give the whole batch's."""
    state = states(recipe, config)
    stats = {"mean": state.stats["mean"] + 1.0}
    outcomes = []
    for part in split(batch, 4):
        outcomes.append(recipe.phases[2].objective(state.params, stats, recipe.constants, part, Context(state.key)))
    whole = recipe.phases[2].objective(state.params, stats, recipe.constants, batch, Context(state.key))
    assert_close(join(outcomes, stats).stats, whole.stats, rtol=1e-5)
    many = {"mean": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    resting = [dataclasses.replace(outcome, stats=many) for outcome in outcomes[:3]]
    np.testing.assert_array_equal(join(resting, many).stats["mean"], many["mean"])


def test_what_cannot_be_is_refused(recipe, config):
    labels = parameter_labels(recipe)
    for count in (0, 3, -2):
        config.accumulate = count
        with pytest.raises(
            InputError, match=rf"accumulate is {count}, .* config.batch_size \(16\); take one of \[1, 2"
        ):
            create_train_step(recipe, config, labels)
    phases = [*recipe.phases[:2], dataclasses.replace(recipe.phases[2], relational="config.affect_loss=ccc")]
    relational = dataclasses.replace(recipe, phases=phases)
    config.accumulate = 2
    with pytest.raises(InputError, match=r"'finetune' compares the examples of a batch \(config.affect_loss=ccc\)"):
        create_train_step(relational, config, labels)
    config.accumulate = 1
    create_train_step(relational, config, labels)
    with pytest.raises(InputError, match="16 in 4 microbatches does not divide over 8 devices; .* to 32 or 64"):
        check_batch_size(16, create_mesh(8), 4)
