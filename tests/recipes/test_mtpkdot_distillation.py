"""MT-PKDOT's alignment and student: losses, weights and gradients against NumPy or a formula by hand, gaps included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mtpkdot_setup import (
    NAMES,
    ROWS,
    TOLERANCE,
    VISIBLE,
    adapt,
    build,
    cosine_distance,
    cross_entropy,
    finite,
    has,
    inputs,
    linear,
    make_config,
    make_world,
    phase_of,
)

from emokd.losses import transport
from emokd.models.network import functional
from emokd.phase import Context
from emokd.training.step import create_train_step, gradients, parameter_labels, weigh

K = 4  # anchors
POOL = (*NAMES, "joint")
ALIGN = {"distance": 0.3, "task": 0.7, "modality": 0.4}


def similarities(features):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


def centroid_distance(own, theirs):
    return np.linalg.norm((similarities(own) - similarities(theirs)).mean(0))


@functools.cache
def solver():
    return jax.jit(lambda own, theirs: transport.sinkhorn_divergence(own, theirs, blur=0.1, solver="geomloss").values)


def divergence(own, theirs):
    """Between the clouds of similarities to the K least similar rows in the teacher's eyes."""
    mine, hers = similarities(own), similarities(theirs)
    others = np.where(np.eye(len(hers), dtype=bool), np.inf, hers)
    anchors = np.argsort(others, axis=1, kind="stable")[:, :K]
    clouds = [np.take_along_axis(s - s.min(), anchors, 1).astype(np.float32) for s in (mine, hers)]
    return float(np.asarray(solver()(*clouds)).mean())


def compare(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), found, expected)


def total_of(terms):
    """coefficient x mean over the rows that count, in NumPy."""
    return sum(t.coefficient * np.asarray(t.values)[np.asarray(t.rows)].mean() for t in terms.values())


@pytest.fixture(scope="module")
def world():
    return make_world()


# Alignment.


def hand_written_alignment(network, params, stats, batch, detach):
    """0.3 sum (1 - cos) + 0.7 (CE of the joint teacher + 0.4 sum of CE), means over the rows that count."""
    signals, _ = network(params["teacher"], stats["teacher"], inputs(batch))
    joint = jax.lax.stop_gradient(signals.features) if detach else signals.features
    labels = np.asarray(batch["expression"])

    def mean(values, rows):
        rows = rows.astype(np.float32)
        return (values * rows).sum() / rows.sum()

    def task(logits, rows):
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), np.maximum(labels, 0)[:, None], axis=1)[:, 0]
        return mean(-chosen, rows & (labels >= 0))

    total = ALIGN["task"] * task(signals.logits, has(batch, "joint"))
    for name in NAMES:
        adapted = adapt(params, name, signals.intermediates[f"token/{name}"])
        cosine = (adapted * joint).sum(-1) / jnp.sqrt((adapted**2).sum(-1) * (joint**2).sum(-1))
        total += ALIGN["distance"] * mean(1 - cosine, has(batch, name))
        logits = linear(params["aligned_heads"][name]["expression"], adapted)
        total += ALIGN["task"] * ALIGN["modality"] * task(logits, has(batch, name))
    return total


@pytest.fixture(scope="module")
def aligned(world):
    """By `detach`: (our gradients, our terms, the formula's value, its gradients)."""
    network = functional(world.recipe.networks["joint"])
    recipes = {detach: build(align={**ALIGN, "joint_multiplier": 0.3, "detach": detach}) for detach in (True, False)}

    @jax.jit
    def compute(state):
        found = {}
        for detach, recipe in recipes.items():
            phase, labels = phase_of(recipe, "align"), parameter_labels(recipe)
            grads, outcome, _, _ = gradients(recipe, phase, labels, state, {}, world.batch)
            formula = functools.partial(hand_written_alignment, network, detach=detach)
            value, slope = jax.value_and_grad(formula)(state.params, state.stats, world.batch)
            found[detach] = grads, outcome.terms, value, slope
        return found

    return compute(world.state)


def learns_in_align(params):
    teacher = params["teacher"]
    return {"fusion": teacher["fusion"], "heads": teacher["heads"], "adapters": params["adapters"]} | {
        "aligned_heads": params["aligned_heads"]
    }


@pytest.mark.parametrize("detach", [True, False])
def test_alignment_is_the_cosine_distance_to_the_joint_features_and_its_share_of_the_task(world, aligned, detach):
    _, terms, value, _ = aligned[detach]
    labels, (joint, _) = world.batch["expression"], world.teacher["joint"]
    assert {name: term.coefficient for name, term in terms.items()} == {
        "joint/expression": 0.7,
        **{f"align/{name}": 0.3 for name in NAMES},
        **{f"{name}/expression": pytest.approx(0.28) for name in NAMES},
    }
    for name in POOL:
        features, logits = world.teacher[name]
        rows, term = has(world.batch, name), terms[f"{name}/expression"]
        np.testing.assert_array_equal(term.rows, rows & (np.asarray(labels) >= 0))
        np.testing.assert_allclose(term.values, cross_entropy(logits, labels), **TOLERANCE)
        if name != "joint":
            np.testing.assert_array_equal(terms[f"align/{name}"].rows, rows)
            np.testing.assert_allclose(terms[f"align/{name}"].values, cosine_distance(features, joint), **TOLERANCE)
    np.testing.assert_allclose(total_of(terms), value, **TOLERANCE)


@pytest.mark.parametrize("detach", [True, False])
def test_alignments_gradient_is_the_formulas(aligned, detach):
    grads, _, _, slope = aligned[detach]
    compare(learns_in_align(grads), learns_in_align(slope))
    rest = {name: grads[name] for name in ("student", "modality_heads")}, grads["teacher"]["encoders"]
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(rest))


def test_the_joint_features_move_towards_the_modalities_unless_they_are_detached(aligned):
    held, moved = (learns_in_align(aligned[detach][0]) for detach in (True, False))
    for name in ("heads", "adapters", "aligned_heads"):
        compare(held[name], moved[name])
    difference = jax.tree.map(lambda a, b: abs(np.asarray(a) - np.asarray(b)).max(), held["fusion"], moved["fusion"])
    assert max(jax.tree.leaves(difference)) > 1e-3


def test_the_joint_multiplier_scales_what_the_fusion_learns_and_nothing_else(world, aligned):
    grads = learns_in_align(aligned[False][3])
    changes = {rate: {"align": {**ALIGN, "joint_multiplier": rate, "detach": False}} for rate in (0.3, 0.0)}
    steps = {}
    for rate, change in changes.items():
        recipe = build(**change)
        index = [phase.name for phase in recipe.phases].index("align")
        step = create_train_step(recipe, make_config(**change), parameter_labels(recipe))
        steps[rate] = functools.partial(step, world.state, {}, world.batch, phase=index)
    before = learns_in_align(world.state.params)
    found = jax.jit(lambda: {rate: step() for rate, step in steps.items()})()
    for rate, (state, metrics) in found.items():
        np.testing.assert_allclose(metrics["loss"], aligned[False][2], **TOLERANCE)
        after = learns_in_align(state.params)
        for name, values in before.items():
            scale = 0.1 * (rate if name in ("fusion", "heads") else 1.0)
            expected = jax.tree.map(lambda p, g, scale=scale: p - scale * g, values, grads[name])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after[name], expected)


# The student.

PKD = {"objective__task": 1.0, "objective__transport": 0.0, "objective__centroid": 0.0, "objective__features": 0.6}
PKDOT = {"objective__task": 1.0, "objective__transport": 0.6, "objective__centroid": 0.0}
ONE = {
    "pkd mse": {"pool": "joint", **PKD},
    "pkd cosine": {"pool": "joint", "distance": "cosine", **PKD},
    "pkdot": {"pool": "joint", **PKDOT},
    "paper": {},
}
SAMPLE = {"name": "most_confident", "per": "sample"}
SEVERAL = {
    "sample": {**PKDOT, "objective__features": 0.5, "distance": "cosine", "weighting": (SAMPLE,)},
    "soft": {**PKD, "objective__centroid": 0.3, "weighting": ({"name": "relevance"},)},
}


def expected_losses(world, name, *, transported=0.0, centroid=0.0, mse=0.0, cosine=0.0):
    """[B]: a teacher's loss on the rows that have it, which know of no other rows; 0 elsewhere."""
    rows = has(world.batch, name)
    own, theirs = world.student.features[rows], world.teacher[name][0][rows]
    values = mse * ((own - theirs) ** 2).mean(1) + cosine * cosine_distance(own, theirs)
    values += (transported * divergence(own, theirs) if transported else 0) + centroid * centroid_distance(own, theirs)
    losses = np.zeros(ROWS)
    losses[rows] = values
    return losses


def teachers_errors(world):
    """[B, K]: cross-entropies; a teacher knows nothing of a row without its modality: all three classes alike."""
    labels = world.batch["expression"]
    told = [np.where(has(world.batch, n)[:, None], world.teacher[n][1], 0.0) for n in POOL]
    return np.stack([cross_entropy(logits, labels) for logits in told], 1)


@pytest.fixture(scope="module")
def learned(world):
    """The student's outcomes with one teacher, and the paper's weights."""
    recipes = {name: build(**changes) for name, changes in ONE.items()}

    @jax.jit
    def compute(state):
        found = {}
        for name, recipe in recipes.items():
            look = None if name == "paper" else lambda evidence, rows: jnp.ones((ROWS, 1))
            outcome = recipe.phases[-1].objective(state.params, state.stats, {}, world.batch, Context(state.key, look))
            found[name] = outcome.terms, outcome.teacher_losses, outcome.rows
        weights, _ = weigh(recipes["paper"], state.weighting, outcome.evidence, outcome.rows)
        return found, weights

    return compute(world.state)


@pytest.fixture(scope="module")
def several(world):
    """(gradients, outcome, weights) of the student with four teachers that count row by row."""
    recipes = {name: build(**changes) for name, changes in SEVERAL.items()}

    @jax.jit
    def compute(state):
        return {
            name: gradients(recipe, recipe.phases[-1], parameter_labels(recipe), state, {}, world.batch)[:3]
            for name, recipe in recipes.items()
        }

    return compute(world.state)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("pkd mse", {"mse": 0.6}), ("pkd cosine", {"cosine": 0.6}), ("pkdot", {"transported": 0.6})],
)
def test_one_joint_teacher_makes_it_point_to_point_distillation_or_pkdot(world, learned, name, parts):
    terms, losses, rows = learned[0][name]
    mask = np.asarray(world.batch["mask"])
    np.testing.assert_array_equal(rows, mask)
    expected = expected_losses(world, "joint", **parts)
    np.testing.assert_allclose(np.asarray(losses)[mask, 0], expected[mask], **TOLERANCE)
    task = cross_entropy(world.student.logits, world.batch["expression"])[mask & (world.batch["expression"] >= 0)]
    np.testing.assert_allclose(total_of(terms), task.mean(), **TOLERANCE)


def test_a_teacher_of_whom_a_row_lacks_the_modality_is_ignorant_there_when_the_batchs_teacher_is_chosen(world, learned):
    mask = np.asarray(world.batch["mask"])
    scored = mask & (np.asarray(world.batch["expression"]) >= 0)
    expected = np.eye(4)[teachers_errors(world)[scored].mean(0).argmin()] * mask[:, None]
    np.testing.assert_array_equal(learned[1], expected)


def test_per_sample_and_soft_weights_are_what_numpy_gives(world, several):
    errors, mask = teachers_errors(world), np.asarray(world.batch["mask"])[:, None]
    labelled = np.asarray(world.batch["expression"])[:, None] >= 0
    hard = np.eye(4)[errors.argmin(1)]
    soft = np.exp(-errors) / np.exp(-errors).sum(1, keepdims=True)
    assert len(set(errors[labelled[:, 0]].argmin(1))) > 1
    for name, weights in (("sample", hard), ("soft", soft)):
        expected = np.where(labelled, weights, 0.25) * mask
        np.testing.assert_allclose(several[name][2], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "parts"), [("sample", {"transported": 0.6, "cosine": 0.5}), ("soft", {"centroid": 0.3, "mse": 0.6})]
)
def test_rows_without_a_teachers_modality_take_no_part_in_its_losses(world, several, name, parts):
    _, outcome, weights = several[name]
    mask = np.asarray(world.batch["mask"])
    for k, teacher in enumerate(POOL):
        losses = np.asarray(outcome.teacher_losses)[:, k]
        np.testing.assert_allclose(losses, expected_losses(world, teacher, **parts), **TOLERANCE)
        assert weights[:, k].any()  # or it would not have been transported to
        if "transported" in parts:
            rows = has(world.batch, teacher)
            found = np.asarray(outcome.metrics[f"transport/divergence/{teacher}"])
            own, theirs = world.student.features[rows], world.teacher[teacher][0][rows]
            np.testing.assert_allclose(found, np.where(rows, divergence(own, theirs), 0.0), **TOLERANCE)
    assert (~has(world.batch, "heart") & mask).sum() == 3 and (~has(world.batch, "skin") & mask).sum() == 2


def test_softly_weighted_teachers_give_the_gradient_of_the_weighted_mean_over_rows(world, several):
    grads, _, weights = several["soft"]
    network = functional(world.recipe.student_spec)
    labels, mask = np.asarray(world.batch["expression"]), np.asarray(world.batch["mask"])
    scored = np.flatnonzero(mask & (labels >= 0))

    def formula(own):
        signals, _ = network(own, world.state.stats["student"], inputs(world.batch, VISIBLE))
        total = -jax.nn.log_softmax(signals.logits)[scored, labels[scored]].mean()
        for k, name in enumerate(POOL):
            rows = np.flatnonzero(has(world.batch, name))
            mine, theirs = signals.features[rows], world.teacher[name][0][rows].astype(np.float32)
            unit = mine / jnp.sqrt((mine**2).sum(1, keepdims=True))
            apart = (unit @ unit.T).mean(0) - jnp.asarray(similarities(theirs).mean(0), jnp.float32)
            losses = 0.6 * ((mine - theirs) ** 2).mean(1) + 0.3 * jnp.sqrt((apart**2).sum())
            total += (weights[rows, k] * losses).sum() / float(mask.sum())
        return total

    compare(grads["student"], jax.jit(jax.grad(formula))(world.state.params["student"]))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves({**grads, "student": {}}))


# What is absent.


def test_nothing_that_is_absent_makes_a_gradient_that_is_not_finite(world, aligned, several):
    names = ("teach", "joint")

    @jax.jit
    def compute(state):
        labels = parameter_labels(world.recipe)
        phases = [phase_of(world.recipe, name) for name in names]
        return [gradients(world.recipe, phase, labels, state, {}, world.batch)[:2] for phase in phases]

    (teach, taught), (joint, fused) = compute(world.state)
    assert finite((teach, joint, taught.terms, fused.terms, aligned, several))
    labels = np.asarray(world.batch["expression"])
    np.testing.assert_allclose(
        fused.terms["joint/expression"].values, cross_entropy(world.teacher["joint"][1], labels), **TOLERANCE
    )
    for name in NAMES:
        term = taught.terms[f"{name}/expression"]
        head = world.state.params["modality_heads"][name]["expression"]
        np.testing.assert_array_equal(term.rows, has(world.batch, name) & (labels >= 0))
        np.testing.assert_allclose(term.values, cross_entropy(linear(head, world.tokens[name]), labels), **TOLERANCE)
