"""Teacher-bounded students: the loss against NumPy, what a teacher can teach, and the mirrored evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes_setup import SIZE

from emokd import defaults
from emokd.benchmarking.program import find_collectives
from emokd.data.augment import centre_views, render
from emokd.data.pipeline import train_batches
from emokd.errors import InputError
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import bounded
from emokd.recipes.common import Task
from emokd.training.checkpoints import abstract_like
from emokd.training.programs import Programs
from emokd.training.state import create_state
from emokd.training.step import gradients, parameter_labels


def make_teacher(classes, seed=1, heads=("expression", "valence_arousal")) -> TrainedModel:
    """A network with random weights, as if read from a file."""
    sizes = {"expression": len(classes), "valence_arousal": 2, "gaze": 3}
    named = {"expression": tuple(classes)} if "expression" in heads else {}
    spec = NetworkSpec(
        "basic_cnn", {"width": 2, "size": SIZE}, {h: sizes[h] for h in heads}, named, Preprocessing(SIZE)
    )
    params, stats = jax.device_get(functional(spec).init(jax.random.key(seed)))
    return TrainedModel(spec, params, stats, origin=f"random {seed}")


def make_config(*names):
    config = bounded.default_config()
    config.batch_size = 8
    config.student = defaults.network("basic_cnn", size=SIZE, width=2)
    for name in names:
        config.teachers[name] = defaults.teacher("basic_cnn", checkpoint="unused")
    config.phases.distill = defaults.phase(steps=2, learning_rate=1e-2, warmup_percent=0.0)
    return config


def build(config, models, examples, counts=()):
    task = Task(examples.classes, tuple(examples.columns), {"labelled": len(examples)}, config.batch_size, counts)
    return bounded.build(config, task, models)


def first_batch(examples, config):
    stream = train_batches(examples, batch_size=config.batch_size, seed=0, canvas=SIZE, fit="crop", num_threads=0)
    return jax.tree.map(jnp.asarray, next(stream))


def faces(examples):
    """The painted faces with the bounded recipe's two targets alone, half of them without valence and arousal."""
    affect = examples.columns["valence_arousal"].copy()
    affect[1::2] = np.nan
    columns = {"expression": examples.columns["expression"], "valence_arousal": affect}
    return dataclasses.replace(examples, columns=columns, classes={"expression": examples.classes["expression"]})


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_the_total_is_the_papers_formula(examples):
    data = faces(examples)
    classes = data.classes["expression"]
    # The teacher's classes are in another order, and it knows one more.
    model = make_teacher([*classes[::-1], "boredom"])
    config = make_config("one")
    config.data.augment.update({"crop_area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0})
    config.data.augment.update({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0})
    config.phases.head.enabled = True  # evaluation mode, so that the student's outputs can be had from outside
    recipe = build(config, {"one": model}, data)
    state, batch = create_state(recipe, config, len(classes), jax.random.key(config.seed)), first_batch(data, config)

    pixels = render(batch["image"], centre_views(8), SIZE)
    own = functional(recipe.student_spec)(
        state.params["student"], state.stats["student"], recipe.student_spec.preprocessing(pixels)
    )[0]
    theirs = functional(model.spec)(model.params, model.stats, model.spec.preprocessing(pixels))[0]
    z_s, z_t = np.asarray(own.logits, np.float64), np.asarray(theirs.logits, np.float64)[:, :8][:, ::-1]
    labels = np.asarray(batch["expression"])
    cross_entropy = -np.log(softmax(z_s)[np.arange(8), labels])
    p_t, p_s = softmax(z_t / 4), softmax(z_s / 4)
    kl = 16 * (p_t * (np.log(p_t) - np.log(p_s))).sum(-1)
    target = np.asarray(batch["valence_arousal"], np.float64)
    rows = ~np.isnan(target).any(-1)
    assert 0 < rows.sum() < 8
    d_s = np.asarray(own.valence_arousal, np.float64) - target
    d_t = np.asarray(theirs.valence_arousal, np.float64) - target
    smooth = np.where(abs(d_s) < 1, d_s**2 / 2, abs(d_s) - 0.5).sum(-1)
    bound = np.where(d_s**2 > d_t**2, d_s**2, 0).sum(-1)
    expected = (
        0.5 * cross_entropy.mean() + 0.5 * kl.mean() + smooth[rows].mean() + 0.5 * np.where(rows, bound, 0).sum() / 8
    )

    def total(state):
        _, outcome, weights, _ = gradients(recipe, recipe.phases[0], labels_of, state, recipe.constants, batch)
        terms = sum((term.values * term.cotangent).sum() for term in outcome.terms.values())
        return terms + (weights * outcome.teacher_losses).sum() / 8

    labels_of = parameter_labels(recipe)
    np.testing.assert_allclose(jax.jit(total)(state), expected, rtol=1e-4)


def test_the_compiled_step_reduces_and_does_nothing_else_between_devices(examples):
    data, config = faces(examples), make_config("one")
    programs = Programs(build(config, {"one": make_teacher(data.classes["expression"])}, data), config, 8)
    assert programs.mesh.size == 8
    state = abstract_like(programs.abstract, programs.placement.state)
    constants = jax.device_put(programs.recipe.constants, programs.placement.constants)
    step = programs.step(0, state, constants, first_batch(data, config))
    assert set(find_collectives(step.compiled.as_text())) == {"all-reduce"}


def test_without_soft_targets_and_bound_the_teacher_is_not_even_asked(examples):
    data = faces(examples)
    config = make_config("one")
    config.soft_targets.alpha, config.bound.nu = 0.0, 0.0
    recipe = build(config, {"one": make_teacher(data.classes["expression"])}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), recipe.constants)
    outcome = recipe.phases[0].objective(state.params, state.stats, nan, batch, jax.random.key(0))
    assert outcome.teacher_losses is None
    assert outcome.terms["expression"].coefficient == 1.0
    assert all(np.isfinite(np.asarray(term.values)).all() for term in outcome.terms.values())


def test_a_teacher_of_valence_and_arousal_alone_bounds_and_does_not_classify(examples):
    data = faces(examples)
    config = make_config("one")
    recipe = build(config, {"one": make_teacher((), heads=("valence_arousal",))}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    outcome = recipe.phases[0].objective(state.params, state.stats, recipe.constants, batch, jax.random.key(0))
    assert outcome.terms["expression"].coefficient == 1.0  # nobody's soft targets share the weight
    unlabelled = np.isnan(np.asarray(batch["valence_arousal"])).any(-1)
    assert (np.asarray(outcome.teacher_losses)[unlabelled] == 0).all()
    assert "beaten/one" in outcome.metrics


@pytest.mark.parametrize(
    ("names", "heads", "message"),
    [
        (
            ("neutral", "happy", "sad", "surprise", "anger"),
            ("expression",),
            "but the data also has fear, disgust, contempt",
        ),
        ((), ("gaze",), "has the heads \\['gaze'\\], but the data has targets for"),
    ],
)
def test_a_teacher_that_cannot_teach_this_data_is_refused(examples, names, heads, message):
    with pytest.raises(InputError, match=message):
        build(make_config("one"), {"one": make_teacher(names, heads=heads)}, faces(examples))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bound.margin", -0.1, "config.bound.margin must be at least 0"),
        ("bound.nu", -1.0, "config.bound.nu must be at least 0"),
        ("soft_targets.alpha", 1.5, "config.soft_targets.alpha must be at least 0 and at most 1"),
        ("soft_targets.temperature", 0.0, "config.soft_targets.temperature must be above 0"),
        ("affect_loss", "smoothl1", "Did you mean 'smooth_l1'"),
        ("class_weights", "balancd", "Did you mean 'balanced'"),
    ],
)
def test_options_outside_their_range_are_refused(examples, key, value, message):
    config = make_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        build(config, {}, faces(examples))


def test_balanced_class_weights_make_every_class_count_alike(examples):
    data = faces(examples)
    config = make_config()
    config.class_weights = "balanced"
    counts = (10.0, 5.0, 1.0, 2.0, 4.0, 8.0, 0.0, 2.0)
    recipe = build(config, {}, data, counts)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    plain = build(make_config(), {}, data)
    key = jax.random.key(0)
    weighted, unweighted = (
        np.asarray(r.phases[0].objective(state.params, state.stats, {}, batch, key).terms["expression"].values)
        for r in (recipe, plain)
    )
    expected = np.array([32 / 7 / count if count else 0.0 for count in counts])
    np.testing.assert_allclose(weighted, unweighted * expected[np.asarray(batch["expression"])], rtol=1e-5)


def test_mirrored_evaluation_averages_valence_and_arousal_only(examples):
    data = faces(examples)
    model = make_teacher(data.classes["expression"])
    config = make_config("one")
    config.mirror = True
    recipe = build(config, {"one": model}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    found = recipe.predict(state.params, state.stats, recipe.constants, batch)["one"]
    pixels = np.asarray(batch["image"], np.float32) / 255

    def answer(pixels):
        return functional(model.spec)(model.params, model.stats, model.spec.preprocessing(jnp.asarray(pixels)))[0]

    straight, mirrored = answer(pixels), answer(pixels[:, :, ::-1])
    np.testing.assert_allclose(found.logits, straight.logits, atol=1e-5)
    average = (np.asarray(straight.valence_arousal) + np.asarray(mirrored.valence_arousal)) / 2
    np.testing.assert_allclose(found.valence_arousal, average, atol=1e-5)
    assert abs(np.asarray(straight.valence_arousal) - average).max() > 1e-4
