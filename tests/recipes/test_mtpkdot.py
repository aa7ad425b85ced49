"""MT-PKDOT: what each phase moves, the total against its parts, and what the student may depend on."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mtpkdot_tables import ROWS, batches, build, gradients_of, make_config, make_examples, same, whole
from random_state import random_state

from emokd.benchmarking.program import find_collectives
from emokd.data.pipeline import train_batches
from emokd.losses import structure, transport
from emokd.models.network import functional
from emokd.phase import Context
from emokd.recipes.common import imitation
from emokd.training.sharding import create_mesh, put_batch, replicated
from emokd.training.state import enter
from emokd.training.step import create_train_step, gradients, parameter_labels
from emokd.weights import model_folder


@pytest.fixture(scope="module")
def finished():
    """The recipe and the state after each phase, by name."""
    config, examples = make_config(), make_examples()
    recipe = build(config, examples)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    state = random_state(recipe, config, 3)
    after = {"start": state}
    for index, phase in enumerate(recipe.phases):
        state = enter(state, index)
        if phase.prepare is not None:
            params, stats = phase.prepare(state.params, state.stats, {}, whole(examples, config))
            state = dataclasses.replace(state, params=params, stats=stats)
        for batch in batches(examples, config, phase.steps):
            state, metrics = step(state, {}, batch, phase=index)
        after[phase.name] = state
    return config, examples, recipe, after, metrics


def test_each_phase_moves_its_own_parameters_and_no_other(finished):
    _, _, recipe, after, _ = finished
    names = ["start", *(phase.name for phase in recipe.phases)]
    assert names == ["start", "teach", "joint", "hallucinate", "align", "student"]
    sections = {
        "teacher encoders": lambda p: p["teacher"]["encoders"],
        "teacher fusion": lambda p: (p["teacher"]["fusion"], p["teacher"]["heads"]),
        "modality heads": lambda p: p["modality_heads"],
        "adapters": lambda p: (p["adapters"], p["aligned_heads"]),
        "hallucinators": lambda p: p["student"]["hallucinators"],
        "student fusion": lambda p: (p["student"]["fusion"], p["student"]["heads"]),
    }
    moved = {
        now: {name for name, of in sections.items() if not same(of(after[before].params), of(after[now].params))}
        for before, now in zip(names[:-1], names[1:], strict=True)
    }
    assert moved == {
        "teach": {"teacher encoders", "modality heads"},
        "joint": {"teacher fusion"},
        "hallucinate": {"hallucinators"},
        "align": {"teacher fusion", "adapters"},
        "student": {"hallucinators", "student fusion"},
    }


def test_the_students_encoder_starts_from_the_teachers_of_the_same_modality(finished):
    config, examples, recipe, after, _ = finished
    begin = recipe.phases[-1].prepare
    params, stats = begin(after["align"].params, after["align"].stats, {}, whole(examples, config))
    assert same(params["student"]["encoders"]["eye"], after["align"].params["teacher"]["encoders"]["eye"])
    assert set(params["student"]["encoders"]) == {"eye"}
    assert not same(params["student"]["encoders"], after["student"].params["student"]["encoders"])


def test_the_arrays_statistics_are_the_training_sets(finished):
    _, examples, _, after, _ = finished
    for name in ("eye", "skin", "heart"):
        table = np.stack([examples.inputs[f"features/{name}"](i) for i in range(ROWS)]).astype(np.float64)
        found = after["teach"].stats["teacher"]["encoders"][name]["standardizer"]
        np.testing.assert_allclose(found["mean"], np.nanmean(table, 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["std"], np.nanstd(table, 0), rtol=1e-5)
    own = after["teach"].stats["student"]["encoders"]["eye"]["standardizer"]
    assert same(own, after["teach"].stats["teacher"]["encoders"]["eye"]["standardizer"])


def test_the_student_does_not_depend_on_privileged_inputs(finished, tmp_path):
    config, examples, recipe, after, _ = finished
    state, (batch, *_) = after["student"], whole(examples, config)
    expected = jax.jit(recipe.predict)(state.params, state.stats, {}, batch)
    nothing = {
        n: jnp.full_like(v, jnp.nan) if n in ("features/skin", "features/heart") else v for n, v in batch.items()
    }
    without = jax.jit(recipe.predict)(state.params, state.stats, {}, nothing)
    np.testing.assert_array_equal(expected["student"].logits, without["student"].logits)
    assert (np.asarray(expected["joint"].logits) != np.asarray(without["joint"].logits)).any()

    # The folder for use holds a network that takes the eyes alone.
    params, stats = jax.device_get(recipe.extract(state.params, state.stats))
    model_folder.save_model(tmp_path / "student", recipe.student_spec, params, stats, {})
    model = model_folder.load_trained(tmp_path / "student")
    # JSON knows lists alone.
    stored, ours = (json.loads(json.dumps(model_folder.spec_to_json(s))) for s in (model.spec, recipe.student_spec))
    assert stored == ours
    alone, _ = functional(model.spec)(model.params, model.stats, {"eye": batch["features/eye"]})
    np.testing.assert_allclose(alone.logits, expected["student"].logits, atol=1e-5)


def test_the_hallucinated_tokens_are_really_used(finished):
    config, examples, recipe, after, _ = finished
    state, (batch, *_) = after["student"], whole(examples, config)
    other = {**state.params, "student": {**state.params["student"]}}
    other["student"]["hallucinators"] = jax.tree.map(lambda x: x + 1, state.params["student"]["hallucinators"])
    ours, theirs = (jax.jit(recipe.predict)(p, state.stats, {}, batch)["student"].logits for p in (state.params, other))
    assert abs(np.asarray(ours) - np.asarray(theirs)).max() > 1e-3


def test_an_examples_answer_does_not_depend_on_its_batch_mates(finished):
    config, examples, recipe, after, _ = finished
    state, (batch, *_) = after["student"], whole(examples, config)
    mates = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[:0:-1]]), batch)
    for name in ("student", "joint", "heart", "joint(eye+heart)"):
        first, second = (
            jax.jit(recipe.predict)(state.params, state.stats, {}, b)[name].logits[0] for b in (batch, mates)
        )
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_most_confident_teacher_alone_teaches_the_batch(finished):
    config, examples, recipe, after, _ = finished
    state, (batch,) = after["student"], batches(examples, config)
    answers = jax.jit(recipe.predict)(state.params, state.stats, {}, batch)
    labels = np.asarray(batch["expression"])

    def cross_entropy(name):
        z = np.asarray(answers[name].logits, np.float64)
        return (np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), labels]).mean()

    pool = ("eye", "heart", "skin", "joint")
    chosen = min(pool, key=cross_entropy)
    outcome, weights = gradients_of(recipe, state, batch)
    np.testing.assert_array_equal(weights, np.array([[name == chosen for name in recipe.teachers]] * 12, np.float32))
    own, theirs = answers["student"].features, answers[chosen].features
    points = structure.clouds(own, theirs, k=4)
    expected = (
        0.2 * transport.sinkhorn_divergence(points.student, points.teacher, blur=0.1, solver="geomloss").values.mean()
    )
    expected += 0.2 * structure.centroid_distance(own, theirs).mean()
    found = (np.asarray(weights) * np.asarray(outcome.teacher_losses)).sum() / 12
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert outcome.terms["student/expression"].coefficient == 0.8


@pytest.mark.slow
def test_only_a_teacher_that_weighs_something_is_transported_to(finished):
    config, examples, recipe, after, _ = finished
    state, (batch,) = after["student"], batches(examples, config)
    phase, labels = recipe.phases[-1], parameter_labels(recipe)

    def not_asked(params, stats, constants, batch, context):
        return phase.objective(params, stats, constants, batch, dataclasses.replace(context, weigh=None))

    found = [
        jax.jit(functools.partial(gradients, recipe, p, labels))(state, {}, batch)
        for p in (phase, dataclasses.replace(phase, objective=not_asked))
    ]
    (grads, chosen, weights, _), (expected, everything, _, _) = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, expected)
    for k, name in enumerate(recipe.teachers):
        iterations = [outcome.metrics[f"transport/iterations/{name}"].max() for outcome in (chosen, everything)]
        if weights[0, k]:
            np.testing.assert_allclose(chosen.teacher_losses[:, k], everything.teacher_losses[:, k], rtol=1e-5)
            assert iterations[0] == iterations[1] > 1
        else:
            assert iterations[0] == 0 < iterations[1]
            assert (chosen.metrics[f"transport/divergence/{name}"] == 0).all()


def test_the_solvers_state_and_the_choices_are_logged(finished):
    *_, metrics = finished
    for name in ("eye", "heart", "skin", "joint"):
        assert bool(metrics[f"transport/converged/{name}"]) == bool(metrics[f"transport/error/{name}"] < 1e-3)
        assert bool(metrics[f"transport/iterations/{name}"] > 1) == bool(metrics[f"weight/{name}"])
        assert metrics[f"similarity/lowest/{name}"] < metrics[f"similarity/highest/{name}"] <= 1 + 1e-6
    assert sum(float(metrics[f"weight/{name}"]) for name in ("eye", "heart", "skin", "joint")) == pytest.approx(1)


def test_a_remark_names_the_teacher_whose_transport_has_not_converged():
    metrics = {"transport/converged/joint": 0.0, "transport/error/joint": 0.02, "transport/iterations/joint": 2000.0}
    metrics |= {"similarity/lowest/joint": -0.5, "similarity/highest/joint": 0.9, "transport/converged/eye": 1.0}
    metrics |= {"similarity/lowest/student": 0.25, "similarity/highest/student": 1.0}
    remark = imitation.transport_remark(metrics, solver="converged")
    assert "joint: marginal error 0.02 after 2000 iterations" in remark and "eye" not in remark
    assert "the student's lie in [0.25, 1]" in remark
    assert imitation.transport_remark({"transport/converged/eye": 1.0}, solver="converged") == ""
    # GeomLoss's annealing never converges: only what is not finite is worth a word.
    assert imitation.transport_remark(metrics, solver="geomloss") == ""
    torn = metrics | {"transport/error/joint": float("nan"), "similarity/lowest/joint": float("nan")}
    assert "joint: marginal error nan" in imitation.transport_remark(torn, solver="geomloss")


def test_similarities_of_fewer_than_two_examples_have_no_range():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    directions = np.asarray(features) / np.linalg.norm(features, axis=1, keepdims=True)
    similarities = jnp.asarray(directions @ directions.T)
    for rows, expected in (([1, 0, 0, 0], (0, 0)), ([0, 1, 0, 1], (directions[1] @ directions[3],) * 2)):
        found = imitation.similarity_range(similarities, jnp.asarray(rows, bool))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_valence_and_arousal_alone_choose_by_squared_error():
    config, examples = make_config(), make_examples(("valence_arousal",))
    recipe = build(config, examples)
    state, (batch,) = random_state(recipe, config, 0), batches(examples, config)
    answers = jax.jit(recipe.predict)(state.params, state.stats, {}, batch)
    target = np.asarray(batch["valence_arousal"])
    errors = [((np.asarray(answers[n].valence_arousal) - target) ** 2).sum(-1).mean() for n in recipe.teachers]
    _, weights = gradients_of(recipe, state, batch)
    np.testing.assert_array_equal(np.asarray(weights).argmax(1), np.full(12, np.argmin(errors)))


@pytest.mark.slow
def test_structure_is_that_of_each_group():
    config, examples = make_config(), make_examples()
    config.structure.rows, config.structure.k = 3, 2
    recipe, mesh = build(config, examples), create_mesh(4)
    state = random_state(recipe, config, 3)
    (batch,) = whole(examples, config)[:1]
    answers = jax.jit(recipe.predict)(state.params, state.stats, {}, batch)
    rows = put_batch({name: np.asarray(values) for name, values in batch.items()}, mesh)
    with jax.set_mesh(mesh):
        losses = jax.jit(
            lambda s, b: recipe.phases[-1].objective(s.params, s.stats, {}, b, Context(s.key)).teacher_losses
        )
        program = losses.lower(jax.device_put(state, replicated(mesh)), rows).compile()
    found = np.asarray(program(jax.device_put(state, replicated(mesh)), rows))
    k = recipe.teachers.index("joint")
    for start in range(0, 12, 3):
        own, theirs = (np.asarray(answers[name].features)[start : start + 3] for name in ("student", "joint"))
        points = structure.clouds(own, theirs, k=2)
        divergence = transport.sinkhorn_divergence(points.student, points.teacher, blur=0.1, solver="geomloss").values
        expected = 0.2 * divergence + 0.2 * structure.centroid_distance(own, theirs)
        np.testing.assert_allclose(found[start : start + 3, k], expected, rtol=1e-4, atol=1e-6)
    assert "all-gather" not in find_collectives(program.as_text())


@pytest.mark.slow  # of losses and gradients of groups on one and on eight devices, common/test_groups.py
def test_one_and_eight_devices_give_the_same_loss_and_gradients(finished):
    config, examples, recipe, after, _ = finished
    labels = parameter_labels(recipe)
    host = next(train_batches(examples, batch_size=16, seed=0, canvas=8, fit="crop", num_threads=0))
    found = []
    for devices in (1, 8):
        mesh = create_mesh(devices)
        state = jax.device_put(after["align"], replicated(mesh))

        def compute(state, batch):
            grads, outcome, weights, _ = gradients(recipe, recipe.phases[-1], labels, state, {}, batch)
            return grads["student"], outcome.teacher_losses, weights

        batch = put_batch(host, mesh)
        with jax.set_mesh(mesh):
            compiled = jax.jit(compute).lower(state, batch).compile()
        found.append(jax.device_get(compiled(state, batch)))
        assert devices > 1 or not find_collectives(compiled.as_text())
    # Sums, and what test_collectives.py accounts for; the group is the batch.
    assert set(find_collectives(compiled.as_text())) == {"all-gather", "reduce-scatter", "all-reduce"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), *found)
