"""A network of NaN is found in the step that makes it, whatever the loss says, and no checkpoint holds it."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_recipe import make_recipe
from loop_runs import CLASSES, Killed, at_step, kill_at

from emokd.errors import InputError
from emokd.phase import Phase
from emokd.training import divergence, loop
from emokd.training.checkpoints import Checkpoints, read_weights, steps_in
from emokd.training.programs import Programs
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams

PHASE = Phase("teach", None, {}, 9, None)


def hides_nan(recipe, rates):
    """The recipe's first phase, with a loss that is finite even where parameters are not."""
    distill = recipe.phases[0]

    def objective(params, stats, *rest):
        outcome = distill.objective(jax.tree.map(jnp.nan_to_num, params), stats, *rest)
        losses = jnp.clip(jnp.nan_to_num(outcome.teacher_losses), 0.0, 1e3)
        return dataclasses.replace(outcome, teacher_losses=losses, stats=stats)

    schedule = optax.join_schedules([optax.constant_schedule(rate) for rate in rates], range(1, len(rates)))
    return dataclasses.replace(
        recipe, phases=[dataclasses.replace(distill, objective=objective, steps=6, learning_rate=schedule)]
    )


@pytest.fixture(scope="module")
def hiding(fresh):
    """The recipe whose third step makes its parameters infinite, and its programs."""
    recipe, config, _ = fresh()
    recipe = hides_nan(recipe, [0.05, 0.05, float("inf"), 0.05])
    return recipe, Programs(recipe, config, CLASSES)


@pytest.mark.parametrize(
    ("every", "log", "saved"),
    [
        (1, 1000, 2),  # saved after each step, logged at the evaluations: the step before is the last one
        (4, 1000, None),  # nothing was looked at between; the first look is late, and finds it
        (4, 1, None),
        (2, 1000, 2),
    ],
)
def test_parameters_that_are_not_finite_stop_the_run_and_are_never_saved(
    hiding, config, splits, tmp_path, every, log, saved
):
    recipe, programs = hiding
    config.evaluation.every_steps, config.log.every_steps = every, log
    with pytest.raises(InputError) as refused:
        loop.train(loop.Job(config, recipe, splits, None, programs), tmp_path)
    text = str(refused.value)
    assert text.startswith("Step 3 of phase 'distill': parameters backbone, parameters adapters")
    assert "Lower config.phases.distill.learning_rate" in text and "the loss" not in text
    if saved is None:
        assert "no checkpoint yet, so the same folder may be used again" in text
    else:
        assert f"of step {saved}, was saved before that" in text and f"or remove {tmp_path}" in text
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.latest() == saved
    checkpoints.close()
    for step in range(1, (saved or 0) + 1) if every == 1 else ():
        params = read_weights((tmp_path / "checkpoints").absolute(), step, {"params": programs.abstract.params})
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_message_names_the_examples_of_the_step_that_failed_first(config, splits, tmp_path):
    """One example is no number. By the stream it comes first in the second batch of the second phase."""
    recipe, train = make_recipe(steps=(1, 3, 1)), splits["train"]
    names = dict(zip(train.ids.tolist(), train.keys, strict=True))
    streams = Streams(config, create_mesh())
    phases = [streams.training(train, (), index) for index in (0, 1)]
    first, *classify = [[names[i] for i in np.asarray(next(phases[p])["id"]).tolist()] for p in (0, 1, 1, 1)]
    before = {*first, *classify[0]}
    spoilt = next(name for name in classify[1] if name not in before)
    whole = train.inputs["x"]
    inputs = {"x": lambda i: whole(i) * np.float32("nan" if train.keys[i] == spoilt else 1)}
    splits = {**splits, "train": dataclasses.replace(train, inputs=inputs)}
    config.evaluation.every_steps = config.log.every_steps = 1000
    with pytest.raises(InputError) as refused:
        loop.train(loop.Job(config, recipe, splits, None, Programs(recipe, config, CLASSES)), tmp_path)
    text = str(refused.value)
    assert text.startswith("Step 3 of phase 'classify': the loss, parameters head")
    assert f"The batch of step 3 was {', '.join(classify[1][:10])} and 6 more. Lower" in text


def test_what_failed_is_noted_with_its_first_step_and_stays():
    names = divergence.watched({"head": "", "body": ""}, {"teachers": {"two": 0, "one": 0}, "bn": 0})
    statistics = ["statistics bn", "statistics teachers/one", "statistics teachers/two"]
    assert names == ["the loss", "parameters head", "parameters body", *statistics]
    failed = jnp.zeros(6, jnp.int32)
    fine, bad, count = jnp.ones(2), jnp.asarray([1.0, jnp.nan]), jnp.asarray([3], jnp.int32)
    rows = [(1.0, fine, fine), (1.0, bad, fine), (jnp.inf, fine, bad), (1.0, bad, bad)]
    for step, (loss, body, stats) in enumerate(rows, 1):
        statistics = {"bn": fine, "teachers": {"one": stats, "two": fine}}
        finite = divergence.finite(jnp.asarray(loss), {"body": [fine, body, count]}, statistics, names)
        failed = divergence.first_failures(failed, jnp.asarray(step, jnp.int32), finite)
    assert failed.tolist() == [3, 0, 2, 0, 3, 0]  # the head rests


def test_the_message_names_what_was_first_and_what_followed(tmp_path):
    phase = Phase("teach", None, {}, 9, None, remark=lambda metrics: "The solver stopped.")
    names = ["the loss", "parameters teacher_one", "statistics teachers"]
    names_in = lambda step: [f"{step}.png", "b.png"]  # noqa: E731
    divergence.check(np.zeros(3, int), names, {"loss": 1.0}, phase, 7, tmp_path, None, names_in)
    with pytest.raises(InputError) as refused:
        values = {"loss": 1.0, "accuracy": np.nan}
        divergence.check(np.asarray([0, 5, 6]), names, values, phase, 7, tmp_path, 4, names_in)
    assert str(refused.value).startswith(
        "Step 5 of phase 'teach': parameters teacher_one, statistics teachers (from step 6), accuracy (step 7) is not "
        "finite, so the run has diverged. The batch of step 5 was 5.png, b.png. The solver "
        "stopped. Lower config.phases.teach.learning_rate, or"
    )


def test_a_run_that_is_told_to_stop_after_it_has_diverged_saves_nothing(hiding, config, splits, tmp_path, monkeypatch):
    recipe, programs = hiding
    config.evaluation.every_steps = config.log.every_steps = 1000
    at_step(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InputError, match=r"Step 3 of phase 'distill': parameters backbone.* no checkpoint yet"):
        loop.train(loop.Job(config, recipe, splits, None, programs=programs), tmp_path)
    assert not steps_in(tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("loss", "first", "outcome"),
    [
        (2.0, 2.0, ""),
        (900.0, 0.001, ""),  # a first loss below 1 counts as 1
        (1500.0, 2.0, ""),
        (2500.0, 2.0, "remark"),
        (-2500.0, 2.0, "remark"),
        (1.9e6, 2.0, "remark"),
        (2.1e6, 2.0, "stop"),
        (8.5e12, 2.08, "stop"),
    ],
)
def test_a_loss_that_grows_is_remarked_and_one_that_explodes_stops_the_run(tmp_path, loss, first, outcome):
    look = lambda: divergence.growth(loss, first, {"loss": loss}, PHASE, 7, tmp_path, None)  # noqa: E731
    if outcome == "stop":
        with pytest.raises(InputError, match=r"Step 7 of phase 'teach': the loss is .* so the run has diverged. Lower"):
            look()
    else:
        assert look().startswith("Step 7 of phase 'teach': the loss is") if outcome else look() == ""


def test_a_run_whose_loss_explodes_stops_and_one_whose_loss_grows_says_so_in_its_scores(
    recipe, config, splits, tmp_path, monkeypatch
):
    """The rule's numbers are lowered, in place of a network that explodes."""
    config.log.every_steps = config.evaluation.every_steps = 2
    programs = Programs(recipe, config, CLASSES)
    monkeypatch.setattr(divergence, "GROWN", 0.0)
    scores = loop.train(loop.Job(config, recipe, splits, None, programs), tmp_path / "grown")[1]
    assert [remark.split(":")[0] for remark in scores["remarks"][:2]] == [
        "Step 4 of phase 'distill'",
        "Step 7 of phase 'classify'",
    ]
    monkeypatch.setattr(divergence, "EXPLODED", 0.0)
    with pytest.raises(InputError, match="Step 2 of phase 'distill': the loss is .*so the run has diverged"):
        loop.train(loop.Job(config, recipe, splits, None, programs), tmp_path / "exploded")


def test_a_run_that_continues_measures_its_loss_from_the_phases_first_step_and_keeps_its_remarks(
    recipe, config, splits, tmp_path, monkeypatch
):
    """Killed in the last phase: its end is that of a run that was not."""
    programs = Programs(recipe, config, CLASSES)
    job = loop.Job(config, recipe, splits, None, programs)
    monkeypatch.setattr(divergence, "GROWN", 0.0)
    expected = loop.train(job, tmp_path / "whole")[1]["remarks"]
    assert [remark.split(":")[0] for remark in expected[:3]] == [
        f"Step {step} of phase {phase!r}" for step, phase in ((4, "distill"), (7, "classify"), (10, "finetune"))
    ]
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(Killed):
            loop.train(job, tmp_path / "killed")
    assert loop.train(job, tmp_path / "killed")[1]["remarks"] == expected
