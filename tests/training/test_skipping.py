"""Steps in which something is not finite are left out, up to a limit, as if their batches had not been there."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_recipe import CLASSES, make_config, make_recipe, make_splits
from loop_runs import Killed, kill_at
from test_averaging import by_hand
from test_divergence import hides_nan
from test_step import assert_same, compiled_step

from emokd.errors import InputError
from emokd.training import divergence, loop, skipping
from emokd.training.programs import Programs
from emokd.training.sharding import create_mesh
from emokd.training.state import create_state
from emokd.training.streams import Streams

PHASES = (4, 3, 3)


def skipping_config(limit: int):
    config = make_config()
    config.optimizer.skip_diverged = limit
    return config


def is_spoilt(batch):
    return {**batch, "x": batch["x"].at[3, 2].set(jnp.nan)}


@pytest.mark.parametrize("phase", [0, 2])
def test_a_skipped_step_changes_nothing_but_the_counts_of_steps(recipe, batch, phase):
    config = skipping_config(2)
    config.ema.decay = 0.5
    step = compiled_step(recipe, config)
    first, _ = step(create_state(recipe, config, CLASSES, jax.random.key(0)), recipe.constants, batch, phase=phase)
    skipped, metrics = step(first, recipe.constants, is_spoilt(batch), phase=phase)
    assert (int(skipped.step), int(skipped.phase_step)) == (2, 2)
    assert metrics["skipped_steps"] == 1 and not np.isfinite(metrics["loss"])
    counts = {"step": first.step, "phase_step": first.phase_step, "failed": first.failed}
    assert_same(jax.random.key_data(skipped.key), jax.random.key_data(first.key))
    alike = dataclasses.replace(skipped, **counts, key=None), dataclasses.replace(first, key=None)
    assert_same(*alike)


def test_steps_after_a_skipped_one_are_those_of_a_run_without_its_batch(recipe, batch):
    """Compared with the step as it is without the option, which is given the good batches and the right counts."""
    plain, config = compiled_step(recipe, make_config()), skipping_config(2)
    step = compiled_step(recipe, config)
    good = [{**batch, "x": batch["x"] * scale} for scale in (1.0, 0.5, 2.0)]
    ours = create_state(recipe, config, CLASSES, jax.random.key(0))
    theirs = create_state(recipe, make_config(), CLASSES, jax.random.key(0))
    for i, rows in enumerate([good[0], is_spoilt(batch), good[1], is_spoilt(batch), good[2]]):
        ours, _ = step(ours, recipe.constants, rows, phase=0)
        if i in (0, 2, 4):
            theirs = dataclasses.replace(theirs, step=jnp.int32(i), phase_step=jnp.int32(i))
            theirs, _ = plain(theirs, recipe.constants, rows, phase=0)
    for name in ("params", "stats", "optimizer", "tally", "step", "phase_step"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), getattr(ours, name), getattr(theirs, name)
        )
    assert np.asarray(ours.failed).max(1).tolist() == [0, 2, 4]


def test_the_average_is_that_of_the_steps_that_were_not_skipped(recipe, batch):
    config = skipping_config(9)
    config.ema.decay = 0.5
    step, seen = compiled_step(recipe, config), []
    state = create_state(recipe, config, CLASSES, jax.random.key(0))
    # The phase before had seven steps, and the third was skipped.
    state = dataclasses.replace(state, step=jnp.int32(7), failed=state.failed.at[1, 0].set(3))
    for rows in (is_spoilt(batch), batch, is_spoilt(batch), batch, batch):
        state, metrics = step(state, recipe.constants, rows, phase=0)
        if np.isfinite(metrics["loss"]):
            seen.append(state.params["backbone"]["w"])
    assert len(seen) == 3 and metrics["skipped_steps"] == 3
    np.testing.assert_allclose(state.average["params"]["backbone"]["w"], by_hand(seen, 0.5), rtol=1e-5, atol=1e-6)


def test_parameters_that_would_not_be_finite_are_not_taken_though_the_loss_is_finite(batch):
    recipe = hides_nan(make_recipe(), [0.05, float("inf"), 0.05])
    config = skipping_config(1)
    step, state = compiled_step(recipe, config), create_state(recipe, config, CLASSES, jax.random.key(0))
    for _ in range(3):
        state, metrics = step(state, recipe.constants, batch, phase=0)
        assert np.isfinite(metrics["loss"])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.optimizer)))
    names = divergence.watched(recipe.groups, state.stats)
    failed = jax.device_get(state.failed)
    assert skipping.described(failed, names) == [(2, ["parameters backbone", "parameters adapters"])]
    assert not skipping.first_failures(failed).any()


def test_a_record_has_a_row_for_each_skipped_step_until_it_is_full():
    failed = skipping.create(2, 3)
    decided = []
    for step, finite in enumerate([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1], [1, 1, 0]], 1):
        skip, failed = skipping.note(failed, jnp.asarray(finite, bool), jnp.int32(step))
        decided.append(bool(skip))
    assert decided == [False, True, True, False, False]
    assert failed.tolist() == [[0, 0, 5], [0, 2, 0], [3, 3, 0]]
    assert [int(skipping.count(failed, since)) for since in (0, 2, 3)] == [2, 1, 0]
    assert skipping.described(np.asarray(failed), ["a", "b", "c"]) == [(2, ["b"]), (3, ["a", "b"])]
    none = np.asarray(skipping.create(0, 3))
    assert none.tolist() == skipping.first_failures(none).tolist() == [0, 0, 0]
    assert skipping.described(none, ["a", "b", "c"]) == []


def test_without_the_option_the_program_has_nothing_of_it(recipe, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("A step asks what was skipped.")

    for name in ("note", "choose", "count"):
        monkeypatch.setattr(skipping, name, refuse)
    rows = {"x": ((16, 6), np.float32), "expression": ((16,), np.int32), "mask": ((16,), bool)}
    for limit in (0, 1):
        programs = Programs(make_recipe(), skipping_config(limit), CLASSES)
        assert programs.abstract.failed.shape == ((2, 5) if limit else (5,))
        rows_of = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in rows.items()}
        arguments = (0, programs.abstract, programs.recipe.constants, rows_of)
        if limit:
            with pytest.raises(AssertionError, match="what was skipped"):
                programs.trace(*arguments)
        else:
            programs.trace(*arguments)


@pytest.fixture(scope="module")
def spoilt():
    """Splits in which one training example is no number, and the steps of the run whose batches it is in."""
    splits, streams = make_splits(), Streams(make_config(), create_mesh())
    train = splits["train"]
    bad = train.keys[5]
    whole = train.inputs["x"]
    inputs = {"x": lambda i: whole(i) * np.float32("nan" if train.keys[i] == bad else 1)}
    step, found = 0, []
    for index, steps in enumerate(PHASES):
        stream = streams.training(train, (), index)
        for _ in range(steps):
            step += 1
            if train.ids[5] in np.asarray(next(stream)["id"]):
                found.append(step)
    return {**splits, "train": dataclasses.replace(train, inputs=inputs)}, bad, found


@pytest.fixture(scope="module")
def programs():
    return Programs(make_recipe(PHASES), skipping_config(100), CLASSES)


def run(programs, splits, workdir, limit=100):
    job = loop.Job(skipping_config(limit), programs.recipe, splits, None, programs)
    state, scores = loop.train(job, workdir)
    return jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key))), scores


@pytest.fixture(scope="module")
def whole(programs, spoilt, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, run(programs, spoilt[0], workdir)


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_skips_the_steps_of_an_example_that_is_no_number_and_says_so(whole, spoilt):
    workdir, (state, scores) = whole
    _, _, steps = spoilt
    assert 3 <= len(steps) < sum(PHASES) and scores["skipped_steps"] == steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.stats, state.optimizer)))
    measured = [row for row in rows_of(workdir) if "skipped_steps" in row]
    assert [row["step"] for row in measured if "loss" not in row] == steps
    assert measured[-1]["skipped_steps"] == len(steps)
    assert not any(isinstance(value, str) for row in measured for name, value in row.items() if name != "phase")


def test_the_log_names_what_was_not_finite_and_the_examples(programs, spoilt, tmp_path, caplog):
    splits, bad, steps = spoilt
    run(programs, splits, tmp_path)
    told = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert [int(text.split()[1]) for text in told] == steps
    assert told[0].startswith(f"Step {steps[0]} of phase distill is skipped, because the loss, parameters backbone")
    assert f": {len(told)} of the 100 that config.optimizer.skip_diverged allows. Its batch was " in told[-1]
    assert "train/" in told[0]


def test_a_run_killed_among_skipped_steps_continues_bit_for_bit(programs, spoilt, whole, tmp_path, monkeypatch):
    splits, _, steps = spoilt
    for number in (steps[0] + 1, steps[-1]):
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            with pytest.raises(Killed):
                run(programs, splits, tmp_path / str(number))
        state, scores = run(programs, splits, tmp_path / str(number))
        jax.tree.map(np.testing.assert_array_equal, state, whole[1][0])
        assert scores == whole[1][1]


def test_one_step_more_than_the_limit_stops_the_run_which_says_what_it_skipped(spoilt, tmp_path):
    splits, _, steps = spoilt
    programs = Programs(make_recipe(PHASES), skipping_config(1), CLASSES)
    with pytest.raises(InputError) as refused:
        run(programs, splits, tmp_path, limit=1)
    text = str(refused.value)
    assert text.startswith(f"Step {steps[1]} of phase ") and "so the run has diverged" in text
    assert f". Before it 1 step of the run had been skipped as not finite: {steps[0]}. Lower config.phases." in text
