"""The train step: one backward pass for all teachers, frozen groups, optimiser state, devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emokd.errors import InputError
from emokd.phase import Context, Measure, Outcome, label_parameters
from emokd.training.sharding import check_batch_size, create_mesh, put_batch, replicated
from emokd.training.state import create_state
from emokd.training.step import cotangents, create_train_step, gradients, parameter_labels


def compiled_step(recipe, config):
    return jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def test_cotangent_of_weights_is_the_gradient_of_the_weighted_loss(recipe, config, batch):
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    grads, outcome, weights, _ = gradients(
        recipe, recipe.phases[0], parameter_labels(recipe), state, recipe.constants, batch
    )
    # Relevance in NumPy, float64.
    logits = np.asarray(outcome.evidence["teacher_logits"], np.float64)
    rows = np.asarray(batch["mask"])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(np.take_along_axis(log_p, np.asarray(batch["expression"])[:, None, None], 2)[..., 0])
    expected = p / p.sum(1, keepdims=True) * rows[:, None]
    np.testing.assert_allclose(weights, expected, rtol=2e-5)

    def weighted(params):
        losses = (
            recipe.phases[0].objective(params, state.stats, recipe.constants, batch, Context(state.key)).teacher_losses
        )
        return (jnp.asarray(expected, jnp.float32) * losses).sum() / float(rows.sum())

    reference = jax.grad(weighted)(state.params)
    for name in ("backbone", "adapters"):
        jax.tree.map(lambda g, r: np.testing.assert_allclose(g, r, rtol=1e-4, atol=1e-6), grads[name], reference[name])
    assert_same(grads["head"], jax.tree.map(jnp.zeros_like, grads["head"]))


@pytest.mark.parametrize(
    ("phase", "frozen", "moving"), [(0, ["head"], ["backbone", "adapters"]), (1, ["backbone", "adapters"], ["head"])]
)
def test_frozen_groups_do_not_move_and_their_moments_are_held(recipe, config, batch, phase, frozen, moving):
    step = compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    for _ in range(3):
        new, _ = step(state, recipe.constants, batch, phase=phase)
        for name in frozen:
            assert_same(new.params[name], state.params[name])
            assert_same(new.optimizer.inner_states[name], state.optimizer.inner_states[name])
        for name in moving:
            changed = jax.tree.map(lambda a, b: bool((a != b).any()), new.params[name], state.params[name])
            assert all(jax.tree.leaves(changed))
        state = new


def test_optimizer_tree_is_the_same_in_every_phase(recipe, config, batch):
    step = compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    structures = {str(jax.tree.structure(state))}
    for phase in range(3):
        state, _ = step(state, recipe.constants, batch, phase=phase)
        structures.add(str(jax.tree.structure(state)))
    assert len(structures) == 1


def test_one_compilation_per_phase(recipe, config, batch):
    step = compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    for phase in (0, 1, 2):
        for _ in range(3):
            state, _ = step(state, recipe.constants, batch, phase=phase)
    assert step._cache_size() == 3


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_padding_rows_change_nothing(recipe, config, batch, phase):
    """Neither their labels nor their inputs; but running statistics, where they move, are those of all rows."""
    step = compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    poisoned = {**batch, "expression": batch["expression"].at[13:].set(0), "x": batch["x"].at[13:].set(1e3)}
    (first, metrics), (second, same) = (step(state, recipe.constants, b, phase=phase) for b in (batch, poisoned))
    for name in ("params", "optimizer", "weighting", "tally"):
        assert_same(getattr(first, name), getattr(second, name))
    assert_same(metrics, same)
    moved = bool((first.stats["mean"] != second.stats["mean"]).any())
    assert moved == (phase != 1)


def test_one_and_eight_devices_agree(recipe, config, batch):
    assert jax.device_count() == 8
    step = compiled_step(recipe, config)
    results = []
    for devices in (1, 8):
        mesh = create_mesh(devices)
        state = jax.device_put(create_state(recipe, config, 3, jax.random.key(config.seed)), replicated(mesh))
        constants = jax.device_put(recipe.constants, replicated(mesh))
        rows = put_batch({k: np.asarray(v) for k, v in batch.items()}, mesh)
        metrics = None
        for phase in (0, 0, 1, 2):
            state, metrics = step(state, constants, rows, phase=phase)
        results.append((jax.device_get(state.params), jax.device_get(metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)


def test_tally_sums_weights_by_class(recipe, config, batch):
    step = compiled_step(recipe, config)
    state, metrics = step(
        create_state(recipe, config, 3, jax.random.key(config.seed)), recipe.constants, batch, phase=0
    )
    labels = np.asarray(batch["expression"])[:13]
    np.testing.assert_array_equal(state.tally["rows"], [*np.bincount(labels, minlength=3), 0])
    # Relevance gives each example weights that sum to one.
    np.testing.assert_allclose(state.tally["weights"].sum(1), state.tally["rows"], rtol=1e-5)
    np.testing.assert_allclose(state.tally["weights"].sum(0)[0] / 13, metrics["weight/a"], rtol=1e-5)


def test_a_measure_is_logged_as_the_mean_of_its_rows(recipe, config, batch):
    """In one program or in microbatches, on one device or on eight; 0, and never NaN, where no row has one."""

    def measured(objective, rows):
        def with_measures(*args):
            outcome, x = objective(*args), args[3]["x"][:, 0]
            some = Measure(jnp.where(args[3][rows], x, jnp.nan), args[3][rows])
            return dataclasses.replace(outcome, metrics={"some": some, "all": x})

        return dataclasses.replace(recipe.phases[0], objective=with_measures)

    x = np.asarray(batch["x"], np.float64)[:, 0]
    batch = {**batch, "few": jnp.arange(16) % 3 == 0, "none": jnp.zeros(16, bool)}
    for rows, wanted in (("few", x[::3].mean()), ("none", 0.0)):
        changed = dataclasses.replace(recipe, phases=[measured(recipe.phases[0].objective, rows), *recipe.phases[1:]])
        for microbatches, devices in ((1, 1), (2, 1), (1, 8)):
            config.accumulate = microbatches
            mesh = create_mesh(devices)
            state, constants = jax.device_put(
                (create_state(changed, config, 3, jax.random.key(0)), recipe.constants), replicated(mesh)
            )
            rows_of = put_batch({k: np.asarray(v) for k, v in batch.items()}, mesh)
            _, metrics = compiled_step(changed, config)(state, constants, rows_of, phase=0)
            np.testing.assert_allclose([metrics["some"], metrics["all"]], [wanted, x.mean()], rtol=1e-5)


def test_the_gradients_norm_is_that_of_what_learns_before_clipping_and_the_rate_is_the_phases(recipe, config, batch):
    config.optimizer.clip_norm = 1e-3
    rate = optax.linear_schedule(0.5, 0.1, 4)
    recipe = dataclasses.replace(recipe, phases=[dataclasses.replace(recipe.phases[0], learning_rate=rate)])
    labels, step = parameter_labels(recipe), compiled_step(recipe, config)
    state = create_state(recipe, config, 3, jax.random.key(config.seed))
    for expected in (0.5, 0.4):
        grads = gradients(recipe, recipe.phases[0], labels, state, recipe.constants, batch)[0]
        squares = [np.square(np.asarray(g, np.float64)).sum() for g in jax.tree.leaves(grads)]  # the head's are zeros
        state, metrics = step(state, recipe.constants, batch, phase=0)
        assert metrics["gradient_norm"] == pytest.approx(np.sqrt(sum(squares)), rel=1e-4)
        assert metrics["learning_rate"] == pytest.approx(expected)


def test_parameter_in_no_group_and_in_two_groups_are_named():
    params = {"a": {"kernel": 0, "bias": 0}, "b": 0}
    with pytest.raises(InputError, match=r"a/bias \(no group\), a/kernel \(x and y\)"):
        label_parameters(params, {"x": "a/k.*", "y": "a/kernel", "z": "b"})


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="over 8 devices; set config.batch_size to 8 or 16, or, .* config.devices to"):
        check_batch_size(12, create_mesh())


@pytest.mark.parametrize(("rows", "message"), [(None, "no rows"), (np.ones(4, bool), "no weighting")])
def test_teacher_losses_without_rows_or_weighting_are_refused(recipe, rows, message):
    outcome = Outcome({}, {}, np.ones((4, 2), np.float32), rows)
    with pytest.raises(InputError, match=message):
        cotangents(dataclasses.replace(recipe, weighting=None), (), outcome)
