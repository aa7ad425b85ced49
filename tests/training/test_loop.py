"""The loop: resuming bit for bit, choosing the best, what it writes, and what it refuses."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from loop_runs import CLASSES, Killed, at_step, kill_at, losses, programs_of, run

from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.phase import Recipe
from emokd.training import evaluation, loop
from emokd.training.checkpoints import steps_in
from emokd.training.observing import few_examples
from emokd.training.state import create_state, enter, weights_for_use
from emokd.training.step import create_train_step, parameter_labels
from emokd.training.stopped import Stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory, fresh):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, run(*fresh(), workdir)


# Steps in each phase: the first, one inside, the last (the boundary itself is the next one's first). The first and last
# of the run, and those on both sides of a boundary, are always tried.
@pytest.mark.parametrize("step", [1, 4, 5, 10, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6, 7, 8, 9))])
def test_a_killed_run_continues_bit_for_bit(recipe, config, splits, whole, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            run(recipe, config, splits, tmp_path / "run")
    state, scores = run(recipe, config, splits, tmp_path / "run")
    expected_state, expected_scores = whole[1]
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert scores == expected_scores
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", whole[0])
    )
    pick = lambda rows: [(r["step"], r["loss"]) for r in rows if "loss" in r]  # noqa: E731
    assert pick(ours) == pick(theirs)


# Inside a phase that is not scored, with its evaluations far apart; and at a phase's last step.
@pytest.mark.parametrize(
    ("by", "step"),
    [
        (signal.SIGTERM, 2),
        (signal.SIGINT, 4),
        pytest.param(signal.SIGTERM, 4, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_told_to_stop_saves_and_continues_bit_for_bit(
    recipe, config, splits, whole, tmp_path, monkeypatch, step, by
):
    config.evaluation.every_steps = 100
    before = signal.getsignal(by)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), by))
        with pytest.raises(Stopped) as stopped:
            run(recipe, config, splits, tmp_path / "run")
    assert (stopped.value.signal, stopped.value.step) == (by, step)
    assert signal.getsignal(by) is before
    assert max(steps_in(tmp_path / "run" / "checkpoints")) == step
    config.evaluation.every_steps = 1
    state, _ = run(recipe, config, splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, state, whole[1][0])


def test_ctrl_c_while_a_phase_is_compiled_names_the_step_that_is_saved(recipe, config, splits, tmp_path, monkeypatch):
    original = loop._Run.compile

    def compile(self, phase, index, batch):
        if index == stopped_in:
            raise KeyboardInterrupt
        return original(self, phase, index, batch)

    monkeypatch.setattr(loop._Run, "compile", compile)
    stopped_in = 0
    with pytest.raises(KeyboardInterrupt):  # nothing is saved yet
        run(recipe, config, splits, tmp_path / "run")
    stopped_in = 1
    with pytest.raises(Stopped) as stopped:
        run(recipe, config, splits, tmp_path / "run")
    assert stopped.value.step == max(steps_in(tmp_path / "run" / "checkpoints"))
    assert stopped.value.signal is signal.SIGINT


def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_it_were_not(recipe, config, splits, whole, tmp_path):
    """Nothing of it is read: the run goes on from the one before, and saves the step again."""
    shutil.copytree(whole[0], tmp_path / "run")
    newest = max(steps_in(tmp_path / "run" / "checkpoints"))
    stored = max(
        (tmp_path / "run" / "checkpoints" / str(newest) / "state").rglob("d/*"), key=lambda p: p.stat().st_size
    )
    content = bytearray(stored.read_bytes())
    content[len(content) // 10] ^= 16
    stored.write_bytes(content)
    (tmp_path / "run" / "checkpoints" / "99").mkdir()
    state, scores = run(recipe, config, splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, state, whole[1][0])
    assert scores == whole[1][1]
    assert max(steps_in(tmp_path / "run" / "checkpoints")) == newest


def test_a_finished_run_is_not_run_again(recipe, config, splits, tmp_path, monkeypatch):
    first = run(recipe, config, splits, tmp_path / "run")
    kill_at(monkeypatch, 1)
    second = run(recipe, config, splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, first[0], second[0])
    assert first[1] == second[1]


def test_checkpoints_too_close_in_time_are_left_out_but_for_the_best_and_the_last(recipe, config, splits, tmp_path):
    config.checkpoint.update({"min_seconds": 1000.0, "keep": 100})
    _, scores = run(recipe, config, splits, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scored = [(r["step"], r["validation/expression/accuracy"]) for r in rows if "validation/expression/accuracy" in r]
    best_so_far = {step for i, (step, score) in enumerate(scored) if score >= max(s for _, s in scored[: i + 1])}
    found = {int(folder.name) for folder in (tmp_path / "run" / "checkpoints").iterdir() if folder.name.isdecimal()}
    assert found == {1, 10} | best_so_far  # the first is due: there is none before it
    assert scores["selected_step"] == max(best_so_far)


def test_the_best_validation_score_is_kept(recipe, config, splits, tmp_path):
    _, scores = run(recipe, config, splits, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scored = [(r["step"], r["validation/expression/accuracy"]) for r in rows if "validation/expression/accuracy" in r]
    assert [step for step, _ in scored] == list(range(5, 11))  # the first phase is not scored
    best = max(score for _, score in scored)
    assert scores["selected_step"] == max(step for step, score in scored if score == best)
    assert scores["validation"]["best"] == pytest.approx(best)
    assert scores["selected_on"] == "validation"


def test_the_best_step_before_an_interruption_is_still_there_at_the_end(recipe, config, splits, tmp_path, monkeypatch):
    config.checkpoint.keep = 1
    given = itertools.chain([1.0], itertools.repeat(0.0))  # the first step that is scored is the best one
    monkeypatch.setattr(evaluation, "selection_score", lambda *_: next(given))
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(recipe, config, splits, tmp_path / "run")
    _, scores = run(recipe, config, splits, tmp_path / "run")
    assert scores["selected_step"] == 5
    found = {int(folder.name) for folder in (tmp_path / "run" / "checkpoints").iterdir() if folder.name.isdecimal()}
    assert found == {5, 10}


def test_the_last_step_is_kept_on_request(recipe, config, splits, tmp_path):
    config.select.which = "last"
    state, scores = run(recipe, config, splits, tmp_path / "run")
    assert int(state.step) == scores["selected_step"] == 10
    assert scores["selected_on"] is None


@pytest.mark.parametrize("killed", [0, 7, pytest.param(6, marks=pytest.mark.slow)])
def test_a_phase_that_gets_no_better_ends_early_and_a_resumed_run_does_alike(
    recipe, config, splits, tmp_path, monkeypatch, killed
):
    """Nothing beats an accuracy by more than 1: each scored phase, of 3 steps, ends after its second evaluation."""
    config.early_stopping.update({"patience": 1, "min_delta": 1.0})
    if killed:
        with monkeypatch.context() as patch:
            kill_at(patch, killed)
            with pytest.raises(Killed):
                run(recipe, config, splits, tmp_path / "run")
    state, scores = run(recipe, config, splits, tmp_path / "run")
    assert scores["stopped_early"] == {name: {"steps": 2, "of": 3} for name in ("classify", "finetune")}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    taken = [(r["phase"], r["step"]) for r in rows if "loss" in r]
    assert taken[-5:] == [("distill", 4), ("classify", 5), ("classify", 6), ("finetune", 7), ("finetune", 8)]
    # The same steps one by one, without the loop: an early end changes no step before it, and no step after it but its
    # number. The run keeps its best step, so the optimiser's state is what shows the last one.
    steps = programs_of(recipe, config)
    expected = steps.create(jax.random.key(config.seed))
    constants = jax.device_put(recipe.constants, steps.placement.constants)
    for phase, count in enumerate((4, 2, 2)):
        stream = loop.Streams(config, steps.mesh, splits=splits).training(splits["train"], (), phase)
        expected = enter(expected, phase)
        for _ in range(count):
            batch = next(stream)
            step = steps.step(phase, expected, constants, batch)
            expected = step.unflatten(step(step.flatten(expected), constants, batch)[0])
    jax.tree.map(np.testing.assert_array_equal, state.optimizer, jax.device_get(expected.optimizer))


def test_the_average_is_what_is_scored_kept_and_continued(recipe, config, splits, tmp_path, monkeypatch):
    config.ema.decay = 0.5
    config.select.which = "last"
    state, scores = run(recipe, config, splits, tmp_path / "whole")
    config.select.which = "best"
    best, _ = run(recipe, config, splits, tmp_path / "best")
    with monkeypatch.context() as patch:
        kill_at(patch, 9)
        with pytest.raises(Killed):
            run(recipe, config, splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, run(recipe, config, splits, tmp_path / "run")[0], best)
    test = splits["test"]
    (params, _), x = weights_for_use(state), np.stack([test.inputs["x"](i) for i in range(13)])
    assert (params["backbone"]["w"] != state.params["backbone"]["w"]).all()
    answers = (x @ params["backbone"]["w"] @ params["head"]["w"] + params["head"]["b"]).argmax(-1)
    assert scores["student"]["expression"]["accuracy"] == pytest.approx((answers == test.columns["expression"]).mean())


def test_moments_of_each_phase_begin_afresh_on_request(recipe, config, splits, whole, tmp_path, monkeypatch):
    """Adam counts the steps that its moments have seen: those of all phases that train a group, or of the last one."""
    config.optimizer.fresh_moments = True
    afresh, _ = run(recipe, config, splits, tmp_path / "whole")

    def counts(state):
        return {
            group: {int(x) for x in jax.tree.leaves(inner) if np.issubdtype(x.dtype, np.integer)}
            for group, inner in state.optimizer.inner_states.items()
        }

    phases = recipe.phases
    for group in recipe.groups:
        assert counts(whole[1][0])[group] == {sum(phase.steps for phase in phases if group in phase.learns)}
        assert counts(afresh)[group] == {phases[-1].steps if group in phases[-1].learns else 0}
    with monkeypatch.context() as patch:
        kill_at(patch, phases[0].steps + 1)
        with pytest.raises(Killed):
            run(recipe, config, splits, tmp_path / "run")
    again, _ = run(recipe, config, splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, afresh)


def test_an_epoch_picked_on_the_test_split_is_marked(recipe, config, splits, tmp_path):
    config.data.split.validation_is_test = True
    _, scores = run(recipe, config, {**splits, "validation": splits["test"]}, tmp_path / "run")
    assert scores["selected_on"] == "test"
    assert scores["student"]["expression"]["accuracy"] == pytest.approx(scores["validation"]["best"])


def with_observer(recipe: Recipe) -> Recipe:
    """The recipe, showing its student's features."""

    def observe(params, stats, constants, batch):
        return {"student": batch["x"] @ params["backbone"]["w"]}

    return dataclasses.replace(recipe, observe=observe)


def seldom(config):
    config.evaluation.every_steps = 2
    config.select.which = "last"
    return config


def observed(workdir):
    return {path.stem: dict(np.load(path)) for path in sorted((workdir / "observations").iterdir())}


@pytest.fixture(scope="module")
def watched(tmp_path_factory, fresh):
    """A run that is observed."""
    workdir = tmp_path_factory.mktemp("watched") / "run"
    recipe, config, splits = fresh()
    return workdir, run(with_observer(recipe), seldom(config), splits, workdir)[0]


def test_a_few_fixed_examples_are_observed(splits, whole, watched):
    workdir, state = watched
    found = observed(workdir)
    # Phases that are scored: at their beginning and at every evaluation; the first one is not: at its end.
    assert [*found] == [
        *("classify-00000004", "classify-00000006", "classify-00000007", "distill-00000004"),
        *("finetune-00000007", "finetune-00000009", "finetune-00000010"),
    ]
    validation = splits["validation"]  # of 11 examples, fewer than a batch
    x = np.stack([validation.inputs["x"](i) for i in range(11)])
    np.testing.assert_allclose(found["finetune-00000010"]["student"], x @ state.params["backbone"]["w"], rtol=1e-5)
    np.testing.assert_array_equal(found["finetune-00000010"]["expression"], validation.columns["expression"])
    assert found["finetune-00000010"]["classes"].tolist() == ["a", "b", "c"]
    same = lambda a, b: (found[a]["student"] == found[b]["student"]).all()  # noqa: E731
    assert same("distill-00000004", "classify-00000004")  # between the two nothing happens
    assert same("classify-00000007", "finetune-00000007") and not same("finetune-00000007", "finetune-00000009")
    # To be watched changes nothing, and who is not watched has no observations. Each has its own programs, and XLA was
    # once seen to compile one that rounds otherwise.
    np.testing.assert_allclose(losses(workdir), losses(whole[0]), rtol=1e-5)
    assert not (whole[0] / "observations").exists()


def test_the_examples_observed_are_those_of_lowest_id(splits):
    few = few_examples(splits["train"], 5)
    ids = splits["train"].ids
    assert sorted(few.ids.tolist()) == sorted(ids.tolist())[:5]
    assert [splits["train"].keys.index(key) for key in few.keys] == sorted(np.argsort(ids)[:5].tolist())


def test_a_killed_run_has_the_same_observations_when_continued(recipe, config, splits, watched, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(with_observer(recipe), seldom(config), splits, tmp_path / "run")
    run(with_observer(recipe), seldom(config), splits, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, observed(tmp_path / "run"), observed(watched[0]))


def test_speed_and_memory_are_reported(recipe, config, splits, tmp_path):
    run(recipe, config, splits, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    compiled = [r for r in rows if "compile_seconds" in r]
    assert [r["phase"] for r in compiled] == ["distill", "classify", "finetune"]
    assert all(r["device_bytes"] > 0 and r["flops_per_step"] > 0 for r in compiled)
    assert any("examples_per_second_per_device" in r and "data_wait_share" in r for r in rows)
    assert any(r.get("host_peak_bytes", 0) > 0 for r in rows)


def test_frozen_features_cost_no_flops(recipe, config, batch):
    """While the head learns, the step costs exactly what it costs with no way for gradients to the backbone at all."""
    classify = recipe.phases[1]

    def without_a_way(params, *rest):
        return classify.objective({**params, "backbone": jax.lax.stop_gradient(params["backbone"])}, *rest)

    phases = [recipe.phases[0], dataclasses.replace(classify, objective=without_a_way), recipe.phases[2]]
    state = create_state(recipe, config, CLASSES, jax.random.key(0))

    def flops(recipe, phase):
        step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
        compiled = step.lower(state, recipe.constants, batch, phase=phase).compile()
        return compiled.cost_analysis()["flops"]

    found, least = flops(recipe, 1), flops(dataclasses.replace(recipe, phases=phases), 1)
    assert found == least
    assert found < flops(recipe, 2)


@pytest.mark.parametrize(("data", "extra", "every"), [("labelled", True, 2), ("all", True, 4), ("all", False, 2)])
def test_an_epoch_between_evaluations_is_one_of_the_phases_own_data(recipe, config, splits, data, extra, every):
    """37 labelled examples and as many more in batches of 16: 2 steps, or 4."""
    config.evaluation = defaults.every(epochs=1)
    job = loop.Job(config, recipe, splits, splits["train"] if extra else None, programs_of(recipe, config))
    assert loop.evaluation_interval(job, dataclasses.replace(recipe.phases[0], data=data)) == every


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(recipe, config, splits, tmp_path):
    x = splits["train"].inputs["x"]
    bad = dataclasses.replace(splits["train"], inputs={"x": lambda i: x(i) * np.float32("nan" if i == 3 else 1)})
    with pytest.raises(InputError, match=r"Step \d+ of phase 'distill': the loss.* is not finite.* Lower config"):
        run(recipe, config, {**splits, "train": bad}, tmp_path / "run")
    assert not (tmp_path / "run" / "scores.json").exists()


def test_a_batch_larger_than_the_split_is_refused(recipe, config, splits, tmp_path):
    config.batch_size = 64
    with pytest.raises(InputError, match="larger than the 37 training examples"):
        run(recipe, config, splits, tmp_path / "run")


def test_an_unknown_selection_metric_names_the_nearest(recipe, config, splits, tmp_path):
    config.select.metric = "expression/acuracy"
    with pytest.raises(InputError, match="Did you mean 'accuracy'"):
        run(recipe, config, splits, tmp_path / "run")
