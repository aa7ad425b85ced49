"""SMKD: what each phase moves and what it leaves alone, its loss, and its switches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes_setup import build, make_config, make_models

from emokd.benchmarking.program import find_collectives
from emokd.data import sources
from emokd.data.augment import centre_views, render
from emokd.data.pipeline import evaluation_batches, train_batches
from emokd.errors import InputError
from emokd.models.network import functional
from emokd.phase import Context
from emokd.recipes.common import standardize, views
from emokd.training.sharding import create_mesh, put_batch, replicated
from emokd.training.state import create_state
from emokd.training.step import create_train_step, gradients, parameter_labels

CLASSES = 8


def batches_of(examples, config, count):
    stream = train_batches(
        examples, batch_size=config.batch_size, seed=0, canvas=config.data.canvas, fit="crop", num_threads=0
    )
    return [jax.tree.map(jnp.asarray, next(stream)) for _ in range(count)]


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)))


def run_phases(config, models, examples):
    """The state after each phase, by name, and the state before the first."""
    recipe = build(config, models, examples)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    state = create_state(recipe, config, CLASSES, jax.random.key(config.seed))
    after = {"start": jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key)))}
    whole = [
        jax.tree.map(jnp.asarray, b)
        for b in evaluation_batches(
            examples, batch_size=config.batch_size, canvas=config.data.canvas, fit="crop", num_threads=0
        )
    ]
    for index, phase in enumerate(recipe.phases):
        if phase.prepare is not None:
            params, stats = phase.prepare(state.params, state.stats, recipe.constants, whole)
            state = dataclasses.replace(state, params=params, stats=stats)
        for batch in batches_of(examples, config, phase.steps):
            state, _ = step(state, recipe.constants, batch, phase=index)
        after[phase.name] = jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key)))
    return recipe, after


@pytest.fixture(scope="module")
def finished():
    config, models = make_config(), make_models()
    examples = sources.load("painter", "", config.data.options)
    return config, models, examples, *run_phases(config, models, examples)


def test_phases_are_the_papers(finished):
    _, _, _, recipe, _ = finished
    assert [phase.name for phase in recipe.phases] == ["probe", "distill", "classify", "finetune"]


def test_probe_moves_only_the_probes(finished):
    *_, after = finished
    before, now = after["start"], after["probe"]
    assert not same(before.params["probes"], now.params["probes"])
    assert same(before.params["student"], now.params["student"])
    assert same(before.params["adapters"], now.params["adapters"])
    assert same(before.stats["student"], now.stats["student"])


def test_distill_moves_features_and_adapters_but_neither_head_nor_probes(finished):
    *_, after = finished
    before, now = after["probe"], after["distill"]
    assert not same(before.params["student"]["backbone"], now.params["student"]["backbone"])
    assert not same(before.stats["student"], now.stats["student"])
    assert not same(before.params["adapters"], now.params["adapters"])
    assert same(before.params["student"]["heads"], now.params["student"]["heads"])
    for name in ("one", "two"):  # rewritten for the same statistics: equal up to rounding
        np.testing.assert_allclose(
            before.params["probes"][name]["kernel"], now.params["probes"][name]["kernel"], rtol=1e-6
        )


def test_classify_leaves_the_features_bit_identical_statistics_included(finished):
    *_, after = finished
    before, now = after["distill"], after["classify"]
    assert same(before.params["student"]["backbone"], now.params["student"]["backbone"])
    assert same(before.stats, now.stats)
    assert not same(before.params["student"]["heads"], now.params["student"]["heads"])


def test_finetune_moves_the_whole_student_and_nothing_else(finished):
    *_, after = finished
    before, now = after["classify"], after["finetune"]
    assert not same(before.params["student"]["backbone"], now.params["student"]["backbone"])
    assert not same(before.params["student"]["heads"], now.params["student"]["heads"])
    assert same(before.params["probes"], now.params["probes"])
    assert same(before.params["adapters"], now.params["adapters"])
    assert same(before.stats["standardizer"], now.stats["standardizer"])


def test_standardizer_is_the_training_sets_mean_and_deviation(finished):
    config, models, examples, _, after = finished
    images = np.stack([examples.inputs["image"](i) for i in range(len(examples))])
    for name, model in models.items():
        pixels = render(jnp.asarray(images), centre_views(len(images)), model.spec.preprocessing.size)
        signals, _ = functional(model.spec)(model.params, model.stats, model.spec.preprocessing(pixels))
        features = np.asarray(signals.features, np.float64)
        fitted = after["probe"].stats["standardizer"][name]
        np.testing.assert_allclose(fitted["mean"], features.mean(0), rtol=1e-4, atol=1e-6)
        alive = features.std(0) > 0
        assert 0 < alive.sum() < len(alive)
        np.testing.assert_allclose(fitted["std"][alive], features.std(0)[alive], rtol=1e-4)
        assert (fitted["std"][~alive] == standardize.IGNORED).all()


def test_distill_loss_is_the_formula(finished):
    config, models, examples, recipe, after = finished
    state = jax.tree.map(jnp.asarray, after["probe"])
    batch = {**batches_of(examples, config, 1)[0]}
    outcome = recipe.phases[1].objective(state.params, state.stats, recipe.constants, batch, Context(jax.random.key(0)))
    # Recompute d(A_k f_S, z_k) in NumPy from the features, on the same view.
    view = views.create_views(batch, views.create_augmentation(config.data.augment), config.data.view_seed)
    spec = recipe.student_spec
    signals, _ = functional(spec)(
        state.params["student"], state.stats["student"], views.see(spec, batch, view), train=True
    )
    f = np.asarray(signals.features, np.float64)
    for k, (name, model) in enumerate(models.items()):
        teacher, _ = functional(model.spec)(model.params, model.stats, views.see(model.spec, batch, view))
        fitted = after["probe"].stats["standardizer"][name]
        z = (np.asarray(teacher.features, np.float64) - fitted["mean"]) / fitted["std"]
        adapter = after["probe"].params["adapters"][name]
        assert z.std() > 0.1
        expected = ((f @ adapter["kernel"] + adapter["bias"] - z) ** 2).mean(-1)
        np.testing.assert_allclose(outcome.teacher_losses[:, k], expected, rtol=1e-3)


def test_teachers_are_constants_and_the_state_holds_none(finished):
    _, models, _, recipe, after = finished
    assert after["finetune"].params["teachers"] == {}
    for name, model in models.items():
        assert same(recipe.constants[name]["params"], model.params)
        assert same(recipe.constants[name]["stats"], model.stats)


def test_extract_gives_the_student_alone(finished):
    *_, recipe, after = finished
    params, stats = recipe.extract(after["finetune"].params, after["finetune"].stats)
    assert set(params) == {"backbone", "heads"}
    assert set(stats) == {"backbone"}


def flops(recipe, config, phase, batch):
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    state = create_state(recipe, config, CLASSES, jax.random.key(config.seed))
    return step.lower(state, recipe.constants, batch, phase=phase).compile().cost_analysis()["flops"]


def test_a_resting_part_costs_no_flops(config, models, examples):
    config.student.options.width = 16  # wide enough for the network to outweigh the augmentation
    recipe = build(config, models, examples)
    (batch,) = batches_of(examples, config, 1)
    classify, finetune = (flops(recipe, config, phase, batch) for phase in (2, 3))
    spec = recipe.student_spec
    augmentation = views.create_augmentation(config.data.augment)

    def forward(params, stats, batch):
        view = views.create_views(batch, augmentation, 0)
        return functional(spec)(params, stats, views.see(spec, batch, view))[0].logits

    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    compiled = jax.jit(forward).lower(params["student"], stats["student"], batch).compile()
    # Classify is the student's forward pass and a linear head: no backward pass, no teachers.
    assert classify < 1.1 * compiled.cost_analysis()["flops"]
    assert classify < 0.5 * finetune


def test_one_and_eight_devices_give_the_same_loss_and_gradients(finished):
    config, _, examples, recipe, _ = finished
    stream = train_batches(examples, batch_size=8, seed=0, canvas=16, fit="crop", num_threads=0)
    batch, results = next(stream), []
    for devices in (1, 8):
        mesh = create_mesh(devices)
        state = jax.device_put(create_state(recipe, config, CLASSES, jax.random.key(config.seed)), replicated(mesh))
        compute = jax.jit(lambda s, c, b: gradients(recipe, recipe.phases[1], parameter_labels(recipe), s, c, b)[:2])
        arguments = state, jax.device_put(recipe.constants, replicated(mesh)), put_batch(batch, mesh)
        compiled = compute.lower(*arguments).compile()
        grads, outcome = compiled(*arguments)
        results.append(jax.device_get((grads, outcome.teacher_losses, outcome.stats)))
    assert set(find_collectives(compiled.as_text())) == {"all-reduce"}  # of gradients and of BatchNorm's statistics
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *results)


def test_phases_can_be_left_out(config, models, examples):
    config.phases.classify.enabled = False
    config.phases.distill.enabled = False
    assert [p.name for p in build(config, models, examples).phases] == ["probe", "finetune"]


def test_all_phases_left_out_is_an_error(config, models, examples):
    for phase in config.phases.values():
        phase.enabled = False
    with pytest.raises(InputError, match="no phase left"):
        build(config, models, examples)


def test_weights_that_ask_the_teachers_need_a_probe(config, models, examples):
    config.phases.probe.enabled = False
    with pytest.raises(InputError, match="config.phases.probe"):
        build(config, models, examples)
    config.weighting = ({"name": "uniform"},)
    assert [p.name for p in build(config, models, examples).phases] == ["distill", "classify", "finetune"]


def test_a_teacher_without_weights_or_task_is_an_error(config, models, examples):
    del models["two"]
    with pytest.raises(InputError, match=r"Teacher 'two' has no weights: give config.teachers.two.checkpoint"):
        build(config, models, examples)


def test_a_teacher_with_a_task_learns_it_first(config, models, examples):
    del models["two"]
    config.teachers.two.task = "scene"
    recipe = build(config, models, examples)
    assert [p.name for p in recipe.phases][0] == "teach"
    assert set(recipe.phases[0].learns) == {"teacher_two"}
    assert set(recipe.constants) == {"one"}


@pytest.mark.slow
def test_full_tuning_trains_the_teacher_in_the_probe(config, models, examples):
    config.teachers.one.tuning = "full"
    recipe, after = run_phases(config, models, examples)
    assert set(recipe.phases[0].learns) == {"probes", "teacher_one"}
    assert not same(after["start"].params["teachers"], after["probe"].params["teachers"])
    assert same(after["probe"].params["teachers"], after["finetune"].params["teachers"])
    assert same(after["probe"].stats["teachers"], after["finetune"].stats["teachers"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("distance", "mes", "config.distance is 'mes'. Did you mean 'mse'"),
        ("weighting", ({"name": "relevence"},), "Did you mean 'relevance'"),
    ],
)
def test_misspelt_options_name_the_nearest(config, models, examples, key, value, message):
    config[key] = value
    with pytest.raises(InputError, match=message):
        build(config, models, examples)


@pytest.mark.slow
def test_unlabelled_rows_count_in_imitation_only(config, models, examples):
    recipe = build(config, models, examples)
    state = create_state(recipe, config, CLASSES, jax.random.key(config.seed))
    (batch,) = batches_of(examples, config, 1)
    batch = {**batch, "expression": batch["expression"].at[:4].set(-1)}
    for index, name in enumerate(("probe", "distill", "classify")):
        grads, outcome, weights, _ = gradients(
            recipe, recipe.phases[index], parameter_labels(recipe), state, recipe.constants, batch
        )
        if name == "distill":
            assert np.asarray(outcome.rows).all()
            np.testing.assert_allclose(weights[:4], 0.5)  # nothing to judge by: uniform
        else:
            term = next(iter(outcome.terms.values()))
            assert not np.asarray(term.rows)[:4].any() and np.asarray(term.rows)[4:].all()
