"""Phases of 1 step and of none, in every unit, and of every recipe."""

import ml_collections
import mtpkdot_setup
import numpy as np
import pytest
from recipes_setup import SIZE, build

from emokd.configuration import defaults
from emokd.errors import InputError
from emokd.recipes import bounded, supervised
from emokd.recipes.common.phases import create_phase
from emokd.recipes.common.task import Task

# 24 examples in batches of 8: an epoch has 3 steps.
TASK = Task({"expression": ("a", "b")}, ("expression",), {"labelled": 24}, 8)
ONE = [("steps", 1), ("epochs", 1 / 3), ("epochs", 0.001), ("examples", 1), ("examples", 8)]


def phase(warmup: float = 5.0, rate: float = 0.3, schedule: str = "cosine", **length):
    section = defaults.phase(learning_rate=rate, warmup_percent=warmup, schedule=schedule, **length)
    config = ml_collections.ConfigDict({"phases": {"only": section}})
    return create_phase("only", config, TASK, lambda *_: None, {"all": 1.0})


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("unit", "length"), ONE)
def test_a_phase_of_one_step_takes_it_at_the_full_rate(unit, length, schedule):
    found = phase(**{unit: length}, schedule=schedule)
    assert found.steps == 1
    assert float(found.learning_rate(0)) == pytest.approx(0.3)


@pytest.mark.parametrize("warmup", [1.0, 5.0, 60.0, 99.0])
def test_rounding_never_makes_the_warm_up_as_long_as_the_phase(warmup):
    for steps in (1, 2, 3, 10):
        found = phase(warmup, steps=steps, schedule="constant")
        rates = [float(found.learning_rate(step)) for step in range(steps)]
        rises = min(max(round(warmup * steps / 100), 1), steps - 1)
        expected = [0.3 * min((step + 1) / max(rises, 1), 1) for step in range(steps)]
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("unit", ["steps", "epochs", "examples"])
def test_a_phase_of_no_length_is_left_out_whatever_its_warm_up(unit):
    for warmup in (0.0, 5.0):
        assert phase(warmup, **{unit: 0}) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "config.phases.only.duration_steps must be a number of steps from 0 up, not -1"),
        ({"epochs": float("nan")}, "config.phases.only.duration_epochs must be a number"),
        ({"epochs": 1.0, "rate": -1.0}, "config.phases.only.learning_rate must be at least 0, not -1"),
        ({"epochs": 1.0, "rate": float("nan")}, "config.phases.only.learning_rate must be at least 0, not nan"),
        ({"steps": 4, "warmup": 100.0}, "config.phases.only.warmup.*shorten the warm-up"),
    ],
)
def test_what_is_no_length_and_no_rate_is_refused_by_key(settings, words):
    with pytest.raises(InputError, match=words):
        phase(**settings)


def names(recipe):
    return [phase.name for phase in recipe.phases]


@pytest.mark.parametrize("left_out", ["probe", "distill", "classify", "finetune"])
def test_smkd_without_a_phase_is_the_same_by_length_and_by_switch(config, models, examples, left_out):
    config.weighting = ({"name": "uniform"},)
    config.phases[left_out].enabled = False
    switched = build(config, models, examples)
    config.phases[left_out] = defaults.phase(epochs=0, learning_rate=1e-2)
    recipe = build(config, models, examples)
    assert names(recipe) == names(switched) and left_out not in names(recipe)
    # Statistics of the teachers' features are taken in the first phase that needs them.
    first = next(phase for phase in recipe.phases if phase.name in ("probe", "distill"))
    assert first.prepare is not None


def test_smkd_asks_for_the_probe_and_for_taught_teachers(config, models, examples):
    config.phases.probe = defaults.phase(steps=0, learning_rate=1e-2)
    with pytest.raises(InputError, match="config.phases.probe"):
        build(config, models, examples)
    config.phases.probe = defaults.phase(steps=1, learning_rate=1e-2)
    del models["two"]
    config.teachers.two.task = "scene"
    config.phases.teach = defaults.phase(examples=0, learning_rate=1e-2)
    with pytest.raises(InputError, match=r"teachers two have no weights .* set config.phases.teach"):
        build(config, models, examples)
    config.start_from = "a run that has taught them"
    assert "probe" in names(build(config, models, examples))


def test_supervised_and_bounded_leave_out_phases_of_no_length(examples):
    task = Task(examples.classes, tuple(examples.columns), {"labelled": 24}, 8)
    for recipe, main in ((supervised, "train"), (bounded, "distill")):
        config = recipe.default_config()
        config.student = defaults.network("basic_cnn", size=SIZE, width=2)
        config.phases.head = defaults.phase(epochs=0, learning_rate=1e-2)
        config.phases[main] = defaults.phase(steps=1, learning_rate=1e-2)
        assert names(recipe.build(config, task, {})) == [main]
        config.phases[main] = defaults.phase(steps=0, learning_rate=1e-2)
        with pytest.raises(InputError, match="no phase left"):
            recipe.build(config, task, {})


def test_mtpkdot_counts_a_phase_of_no_length_as_left_out():
    nothing = {f"phases__{name}__duration_steps": 0 for name in ("teach", "joint", "hallucinate", "align")}
    recipe = mtpkdot_setup.build(**nothing)
    assert names(recipe) == ["student"] and list(recipe.teachers) == []
    assert recipe.student_spec.hallucinated == ()
    assert recipe.phases[0].prepare is not None  # the arrays' statistics, which teach would have taken
    assert mtpkdot_setup.build(phases__hallucinate__duration_steps=0).student_spec.hallucinated == ()
    with pytest.raises(InputError, match="teach and joint go together"):
        mtpkdot_setup.build(phases__joint__duration_steps=0)
    assert names(mtpkdot_setup.build(phases__student__duration_steps=1))[-1] == "student"
