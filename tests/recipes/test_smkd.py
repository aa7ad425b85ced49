"""SMKD: what each phase moves and what it leaves alone, its losses, and its switches; all networks are linear."""

import dataclasses

import jax
import jax.numpy as jnp
import linear_networks
import numpy as np
import pytest
from linear_networks import LinearNetwork, cross_entropy, trained
from recipes_setup import build, make_config

from emokd.benchmarking.program import find_collectives
from emokd.data import sources
from emokd.data.pipeline import evaluation_batches, train_batches
from emokd.errors import InputError
from emokd.phase import Context
from emokd.recipes import smkd
from emokd.recipes.common import views
from emokd.training.sharding import create_mesh, put_batch, replicated
from emokd.training.state import create_state, enter
from emokd.training.step import create_train_step, gradients, parameter_labels

CLASSES = 8
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
STUDENT = LinearNetwork("student", 4, {"expression": CLASSES})
ONE = trained(LinearNetwork("one", 3, {"pretrained": 5}), 1)
TWO = trained(LinearNetwork("two", 5, {"scene": 3}), 2)


def batches_of(examples, config, count):
    stream = train_batches(
        examples, batch_size=config.batch_size, seed=0, canvas=config.data.canvas, fit="crop", num_threads=0
    )
    return [jax.tree.map(jnp.asarray, next(stream)) for _ in range(count)]


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)))


def linear_recipe(config, examples, teachers):
    """The recipe as `build` makes it, but for its networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smkd, "create_student", lambda *_: STUDENT)
        patch.setattr(smkd, "create_teachers", lambda *_: teachers)
        patch.setattr(views, "create_sampler", lambda _: views.centre)
        return build(config, {}, examples)


def run_phases(config, teachers, examples):
    """The recipe, and the state after each phase, by name, and before the first."""
    recipe = linear_recipe(config, examples, teachers)
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
        state = enter(state, index)
        if phase.prepare is not None:
            params, stats = phase.prepare(state.params, state.stats, recipe.constants, whole)
            state = dataclasses.replace(state, params=params, stats=stats)
        for batch in batches_of(examples, config, phase.steps):
            state, _ = step(state, recipe.constants, batch, phase=index)
        after[phase.name] = jax.device_get(dataclasses.replace(state, key=jax.random.key_data(state.key)))
    return recipe, after


@pytest.fixture(scope="module")
def finished():
    """A run of two frozen teachers."""
    config = make_config()
    config.phases.teach.enabled = False
    examples = sources.load("painter", "", config.data.options)
    return config, examples, *run_phases(config, [ONE, TWO], examples)


@pytest.fixture(scope="module")
def tuned():
    """A run whose teacher without weights is taught a task of its own; the probe tunes the other one."""
    config = make_config()
    config.teachers.one.tuning, config.teachers.two.task = "full", "scene"
    examples = sources.load("painter", "", config.data.options)
    two = LinearNetwork("two", 5, {"scene": 8}, learns=True)
    return config, examples, *run_phases(config, [dataclasses.replace(ONE, learns=True), two], examples)


def test_phases_are_the_papers(finished, tuned):
    names = ["probe", "distill", "classify", "finetune"]
    for run, expected in ((finished, names), (tuned, ["teach", *names])):
        assert [phase.name for phase in run[2].phases] == expected


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
    assert same(before.params["probes"], now.params["probes"])  # their statistics have not moved


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
    assert not same(before.stats["student"], now.stats["student"])
    assert same(before.params["probes"], now.params["probes"])
    assert same(before.params["adapters"], now.params["adapters"])
    assert same(before.stats["standardizer"], now.stats["standardizer"])


def test_teach_and_full_tuning_move_the_teachers_that_they_concern(tuned):
    _, _, recipe, after = tuned
    assert set(recipe.phases[0].learns) == {"teacher_two"}
    assert set(recipe.phases[1].learns) == {"probes", "teacher_one"}
    assert recipe.constants == {}
    teachers = {name: (after[name].params["teachers"], after[name].stats["teachers"]) for name in after}
    for before, now, moved in (("start", "teach", "two"), ("teach", "probe", "one")):
        for old, new in zip(teachers[before], teachers[now], strict=True):
            assert {name: same(old[name], new[name]) for name in old} == {n: n != moved for n in ("one", "two")}
    for name in ("distill", "classify", "finetune"):
        assert same(teachers[name], teachers["probe"])
    one = after["start"].params["teachers"]["one"]
    assert same(one, ONE.model.params)


def test_standardizer_is_the_training_sets_mean_and_deviation(finished):
    _, examples, _, after = finished
    images = {"image": np.stack([examples.inputs["image"](i) for i in range(len(examples))])}
    for teacher in (ONE, TWO):
        features, _ = linear_networks.answers(teacher.model.params, teacher.model.stats, images)
        fitted = after["probe"].stats["standardizer"][teacher.name]
        np.testing.assert_allclose(fitted["mean"], features.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(fitted["std"], features.std(0), rtol=1e-4)
        assert same(after["finetune"].stats["standardizer"][teacher.name], fitted)


# Objectives by themselves, in NumPy.


def probed_answers(state, teacher, batch):
    """(z_k, h_k(z_k)) of a frozen teacher."""
    features, _ = linear_networks.answers(teacher.model.params, teacher.model.stats, batch)
    scale, probe = state.stats["standardizer"][teacher.name], state.params["probes"][teacher.name]
    z = (features - scale["mean"]) / scale["std"]
    return z, z @ probe["kernel"] + probe["bias"]


def ask(run, phase, state="probe", unlabelled=(0, 3)):
    """(outcome of a phase's objective, the state it was asked in, the batch); some rows have no label."""
    config, examples, recipe, after = run
    (batch,) = batches_of(examples, config, 1)
    batch["expression"] = batch["expression"].at[np.array(unlabelled)].set(-1)
    (objective,) = [p.objective for p in recipe.phases if p.name == phase]
    state = after[state]
    params, stats = jax.tree.map(jnp.asarray, (state.params, state.stats))
    outcome = objective(params, stats, recipe.constants, batch, Context(jax.random.key(0)))
    return outcome, state, batch


def test_a_teacher_is_taught_its_own_task(tuned):
    outcome, state, batch = ask(tuned, "teach", "start")
    own = (state.params["teachers"]["two"], state.stats["teachers"]["two"])
    _, outputs = linear_networks.answers(*own, batch, train=True)
    assert set(outcome.terms) == {"two"}
    np.testing.assert_allclose(
        outcome.terms["two"].values, cross_entropy(outputs["scene"], batch["scene"]), **TOLERANCE
    )
    np.testing.assert_array_equal(outcome.terms["two"].rows, np.asarray(batch["mask"]))


def test_the_probes_learn_the_labelled_rows(finished):
    outcome, state, batch = ask(finished, "probe")
    labels = np.asarray(batch["expression"])
    for teacher in (ONE, TWO):
        term, (_, logits) = outcome.terms[teacher.name], probed_answers(state, teacher, batch)
        np.testing.assert_array_equal(term.rows, labels >= 0)
        np.testing.assert_allclose(term.values, cross_entropy(logits, labels), **TOLERANCE)
        right = (logits.argmax(1) == labels)[labels >= 0].mean()
        assert float(outcome.metrics[f"accuracy/{teacher.name}"].mean()) == pytest.approx(right)


def test_distill_loss_is_the_formula_on_every_row_labelled_or_not(finished):
    outcome, state, batch = ask(finished, "distill")
    own, _ = linear_networks.answers(state.params["student"], state.stats["student"], batch, train=True)
    assert not outcome.terms and np.asarray(outcome.rows).all()
    for k, teacher in enumerate((ONE, TWO)):
        z, logits = probed_answers(state, teacher, batch)
        adapter = state.params["adapters"][teacher.name]
        expected = ((own @ adapter["kernel"] + adapter["bias"] - z) ** 2).mean(-1)
        np.testing.assert_allclose(outcome.teacher_losses[:, k], expected, **TOLERANCE)
        np.testing.assert_allclose(outcome.evidence["teacher_logits"][:, k], logits, **TOLERANCE)
    kept, colour = state.stats["student"]["backbone"]["mean"], linear_networks.colours(batch).mean(0)
    np.testing.assert_allclose(outcome.stats["student"]["backbone"]["mean"], (kept + colour) / 2, rtol=1e-5)


@pytest.mark.parametrize(("phase", "train"), [("classify", False), ("finetune", True)])
def test_the_emotions_are_learnt_on_labelled_rows(finished, phase, train):
    outcome, state, batch = ask(finished, phase, "distill")
    _, outputs = linear_networks.answers(state.params["student"], state.stats["student"], batch, train=train)
    labels, term = np.asarray(batch["expression"]), outcome.terms["emotion"]
    np.testing.assert_array_equal(term.rows, labels >= 0)
    np.testing.assert_allclose(term.values, cross_entropy(outputs["expression"], labels), **TOLERANCE)
    assert same(outcome.stats, state.stats) is not train


def test_a_backbone_that_rests_keeps_its_statistics_in_finetune(finished):
    config, examples, _, after = finished
    config = config.copy_and_resolve_references()
    config.backbone_multiplier = 0.0
    recipe = linear_recipe(config, examples, [ONE, TWO])
    assert recipe.phases[-1].learns == {"student_head": 1.0}
    outcome, state, _ = ask((config, examples, recipe, after), "finetune", "distill")
    assert same(outcome.stats, state.stats)


def test_the_answers_are_z_and_the_probes_logits(finished):
    config, examples, recipe, after = finished
    state, (batch,) = after["distill"], batches_of(examples, config, 1)
    found = recipe.predict(*jax.tree.map(jnp.asarray, (state.params, state.stats)), recipe.constants, batch)
    for teacher in (ONE, TWO):
        z, logits = probed_answers(state, teacher, batch)
        np.testing.assert_allclose(found[teacher.name].features, z, **TOLERANCE)
        np.testing.assert_allclose(found[teacher.name].logits, logits, **TOLERANCE)
    _, outputs = linear_networks.answers(state.params["student"], state.stats["student"], batch)
    np.testing.assert_allclose(found["student"].logits, outputs["expression"], **TOLERANCE)


def test_teachers_are_constants_and_the_state_holds_none(finished):
    _, _, recipe, after = finished
    assert after["finetune"].params["teachers"] == {}
    for teacher in (ONE, TWO):
        assert same(recipe.constants[teacher.name]["params"], teacher.model.params)
        assert same(recipe.constants[teacher.name]["stats"], teacher.model.stats)


def test_extract_gives_the_student_alone(finished):
    *_, recipe, after = finished
    params, stats = recipe.extract(after["finetune"].params, after["finetune"].stats)
    assert set(params) == {"backbone", "heads"}
    assert set(stats) == {"backbone"}


def test_one_and_eight_devices_give_the_same_loss_and_gradients(finished):
    config, examples, recipe, after = finished
    stream = train_batches(examples, batch_size=8, seed=0, canvas=16, fit="crop", num_threads=0)
    batch, results = next(stream), []
    start = create_state(recipe, config, CLASSES, jax.random.key(config.seed))
    start = dataclasses.replace(start, params=after["probe"].params, stats=after["probe"].stats)
    for devices in (1, 8):
        mesh = create_mesh(devices)
        state = jax.device_put(start, replicated(mesh))
        compute = jax.jit(lambda s, c, b: gradients(recipe, recipe.phases[1], parameter_labels(recipe), s, c, b)[:2])
        arguments = state, jax.device_put(recipe.constants, replicated(mesh)), put_batch(batch, mesh)
        compiled = compute.lower(*arguments).compile()
        grads, outcome = compiled(*arguments)
        results.append(jax.device_get((grads, outcome.teacher_losses, outcome.stats)))
    assert set(find_collectives(compiled.as_text())) == {"all-reduce"}  # of gradients and of statistics
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *results)


# Switches.


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
