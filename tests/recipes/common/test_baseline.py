"""The student on labels alone: which steps, groups and schedule it has, and that labels are all that it learns from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import linear_networks
import mtpkdot_setup
import numpy as np
import pytest
import test_mtpkdot
from linear_networks import LinearNetwork
from recipes_setup import SIZE

from emokd.configuration import defaults
from emokd.configuration.schedules import learning_rate_schedule
from emokd.errors import InputError
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.phase import Context, Phase, Recipe, label_parameters
from emokd.recipes.common import baseline
from emokd.recipes.common.baseline import create_baseline
from emokd.recipes.common.task import Task

CLASSES = ("calm", "glad", "sad")
SPEC = NetworkSpec(
    "basic_cnn",
    {"width": 1, "size": SIZE},
    {"expression": 3, "valence_arousal": 2},
    {"expression": CLASSES},
    Preprocessing(SIZE),
)
TASK = Task({"expression": CLASSES}, ("expression", "valence_arousal"), {"labelled": 24}, 8)


def refuse(*_):
    raise AssertionError("an objective or an answer of the recipe's own is asked")


def phase(name, learns, steps, rate=1e-2, warmup=0):
    return Phase(name, refuse, learns, steps, learning_rate_schedule(rate, steps, warmup, "cosine"), scored=True)


def make_recipe(*phases, **others) -> Recipe:
    """A recipe of one's own: parameters under names of its own, and phases in which the student learns or not."""
    network = functional(SPEC)

    def init(key):
        params, stats = network.init(jax.random.fold_in(key, 7))
        return {"net": {"small": params}, "adapters": {"a": jnp.zeros(2)}}, {"small": stats, "adapters": {}}

    return Recipe(
        groups={"trunk": r"net/small/backbone/.*", "top": r"net/small/heads/.*", "adapters": r"adapters/.*"},
        phases=phases,
        init=init,
        constants={"large": jnp.zeros(3)},
        predict=refuse,
        teachers=["large"],
        weighting=None,
        extract=lambda params, stats: (params["net"]["small"], stats["small"]),
        student_spec=SPEC,
        **others,
    )


def make_config(**changes):
    config = defaults.run("somebodys:own")
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def test_its_steps_are_those_of_all_phases_in_which_the_student_learns():
    recipe = make_recipe(
        phase("adapt", {"adapters": 1.0}, 7),
        phase("imitate", {"adapters": 1.0, "trunk": 1.0}, 30),
        phase("finetune", {"trunk": 0.1, "top": 1.0}, 10),
        phase("adapt again", {"adapters": 1.0}, 5),
    )
    found = create_baseline(recipe, make_config(), TASK)
    (alone,) = found.phases
    assert (alone.name, alone.steps, alone.scored, alone.data) == ("baseline", 40, True, "labelled")
    assert alone.learns == {"trunk": 0.1, "top": 1.0}
    assert (found.teachers, found.weighting, found.constants) == ([], None, {})
    # Its rate is the last phase's, four times as slow.
    last = learning_rate_schedule(1e-2, 10, 0, "cosine")
    for step in (0, 10, 20, 39):
        assert float(alone.learning_rate(jnp.float32(step))) == pytest.approx(float(last(step / 4)), rel=1e-5)


def test_a_learning_rate_of_its_own_is_the_highest_of_the_schedule():
    recipe = make_recipe(phase("learn", {"trunk": 1.0, "top": 1.0}, 20, warmup=4))
    (as_it_was,) = create_baseline(recipe, make_config(), TASK).phases
    (other,) = create_baseline(recipe, make_config(baseline__learning_rate=0.5), TASK).phases
    rates = [[float(p.learning_rate(jnp.float32(step))) for step in range(20)] for p in (as_it_was, other)]
    assert max(rates[0]) == pytest.approx(1e-2) and max(rates[1]) == pytest.approx(0.5)
    np.testing.assert_allclose(np.array(rates[1]) / np.array(rates[0]), 50, rtol=1e-5)


def test_it_begins_as_the_student_does():
    recipe = make_recipe(phase("learn", {"trunk": 1.0, "top": 1.0}, 2))
    found = create_baseline(recipe, make_config(), TASK)
    key = jax.random.key(3)
    (params, stats), (own, own_stats) = jax.jit(recipe.init)(key), jax.jit(found.init)(key)
    jax.tree.map(np.testing.assert_array_equal, own, {"student": params["net"]["small"]})
    jax.tree.map(np.testing.assert_array_equal, own_stats, {"student": stats["small"]})
    labels = label_parameters(own, found.groups)["student"]
    assert set(jax.tree.leaves(labels["backbone"])) == {"trunk"} and set(jax.tree.leaves(labels["heads"])) == {"top"}


def test_what_a_teacher_taught_and_the_student_took_over_counts():
    """As encoders that rest after they were taken over; without it they would be random and rest."""
    phases = [phase("teach", {"adapters": 0.5}, 8), phase("learn", {"top": 1.0}, 2)]
    (alone,) = create_baseline(make_recipe(*phases, adopts={"trunk": "adapters"}), make_config(), TASK).phases
    assert alone.steps == 10 and alone.learns == {"trunk": 0.5, "top": 1.0}
    (alone,) = create_baseline(make_recipe(*phases), make_config(), TASK).phases
    assert alone.steps == 2 and alone.learns == {"top": 1.0}


@pytest.mark.parametrize("affect", ["ccc", "smooth_l1", "emonet"])
def test_its_losses_are_those_of_the_labels(examples, affect, monkeypatch):
    """NumPy's cross-entropy of what is labelled, and a loss of valence and arousal by its name."""
    network = LinearNetwork("student", 4, {"expression": 8, "valence_arousal": 2})
    monkeypatch.setattr(
        baseline, "create_network", lambda *_: lambda p, s, batch, **how: network.signals(p, s, batch, None, **how)
    )
    monkeypatch.setattr(baseline.views, "see", lambda spec, batch, view: batch)
    spec = dataclasses.replace(SPEC, heads=network.heads)
    recipe = dataclasses.replace(
        make_recipe(phase("learn", {"trunk": 1.0, "top": 1.0}, 2)),
        init=lambda key: ({"net": {"small": network.init(key)[0]}}, {"small": network.init(key)[1]}),
        student_spec=spec,
    )
    task = Task(examples.classes, tuple(examples.columns), {"labelled": 24}, 8)
    found = create_baseline(recipe, make_config(), task)
    if affect != "ccc":  # the default, where a recipe does not say
        config = make_config()
        config.affect_loss = affect
        found = create_baseline(recipe, config, task)
    params, stats = found.init(jax.random.key(0))
    batch = {
        "image": jnp.asarray(np.stack([examples.inputs["image"](i) for i in range(6)])),
        "expression": jnp.array([0, -1, 2, 3, 7, 1], jnp.int32),
        "valence_arousal": jnp.array([[0.1, 0.2], [0.3, -0.5], [np.nan, np.nan], [-0.4, 0.9], [0.0, 0.3], [1, 1]]),
        "id": jnp.arange(6, dtype=jnp.uint32),
        "view": jnp.zeros(6, jnp.int32),
        "mask": jnp.array([True] * 5 + [False]),
    }
    outcome = found.phases[0].objective(params, stats, {}, batch, Context(jax.random.key(1)))
    _, outputs = linear_networks.answers(params["student"], stats["student"], batch, train=True)
    term = outcome.terms["expression"]
    np.testing.assert_array_equal(term.rows, [True, False, True, True, True, False])
    expected = linear_networks.cross_entropy(outputs["expression"], batch["expression"])
    np.testing.assert_allclose(np.asarray(term.values)[term.rows], expected[np.asarray(term.rows)], rtol=1e-5)
    term = outcome.terms["valence_arousal"]
    np.testing.assert_array_equal(term.rows, [True, True, False, True, True, False])
    if affect == "smooth_l1":
        error = np.abs(outputs["valence_arousal"] - np.asarray(batch["valence_arousal"]))
        expected = np.where(error < 1, error**2 / 2, error - 0.5).sum(1)
        np.testing.assert_allclose(np.asarray(term.values)[term.rows], expected[np.asarray(term.rows)], rtol=1e-4)
    assert np.isfinite(np.asarray(term.values)[np.asarray(term.rows)]).all()
    assert outcome.teacher_losses is None and outcome.stats["student"]["backbone"]["mean"][0] != 0


def test_a_student_of_several_modalities_is_not_shown_the_privileged_ones():
    recipe = mtpkdot_setup.build()
    examples = test_mtpkdot.make_examples()
    task = Task(examples.classes, tuple(examples.columns), {"labelled": len(examples)}, mtpkdot_setup.ROWS)
    found = create_baseline(recipe, mtpkdot_setup.make_config(modality_dropout=0.3), task)
    (alone,) = found.phases
    assert alone.steps == 3000  # teach, whose encoders the student takes over; hallucinate; student
    assert set(alone.learns) == {"student_encoders", "student_fusion", "hallucinators"}
    batch = {name: values for name, values in mtpkdot_setup.make_batch().items() if name != "features/heart"}
    state = jax.eval_shape(found.init, jax.random.key(0))
    outcome = jax.eval_shape(functools.partial(alone.objective), *state, {}, batch, Context(jax.random.key(0)))
    assert set(outcome.terms) == {"expression"}
    # Statistics of its own two modalities, as NumPy has them.
    params, stats = alone.prepare({}, {"student": {"encoders": {"eye": {}, "skin": {}}}}, {}, [batch])
    given = np.asarray(batch["features/eye"], np.float64)[np.asarray(batch["mask"])]
    np.testing.assert_allclose(
        stats["student"]["encoders"]["eye"]["standardizer"]["mean"], np.nanmean(given, 0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("phases", "changes", "task", "message"),
    [
        ([phase("adapt", {"adapters": 1.0}, 3)], {}, TASK, "the student learns in no phase of this run"),
        (
            [phase("learn", {"top": 1.0}, 3, rate=0.0)],
            {"baseline__learning_rate": 0.1},
            TASK,
            "config.baseline.learning_rate is 0.1, .* phase learn, .*is 0",
        ),
        (
            [phase("learn", {"top": 1.0}, 3)],
            {},
            dataclasses.replace(TASK, classes={"gaze": CLASSES}, columns=("gaze",)),
            r"the heads \['expression', 'valence_arousal'\], but the data has labels for \['gaze'\]",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(phases, changes, task, message):
    with pytest.raises(InputError, match=message):
        create_baseline(make_recipe(*phases), make_config(**changes), task)
