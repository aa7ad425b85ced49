"""MT-PKDOT's numbers: every phase's loss and gradient against NumPy or a formula written by hand, gaps included."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_mtpkdot

from emokd import config as configuration
from emokd import defaults
from emokd.errors import InputError
from emokd.losses import transport
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.recipes import mtpkdot
from emokd.recipes.common import Task
from emokd.training import loop
from emokd.training.state import create_state
from emokd.training.step import create_train_step, gradients, parameter_labels, weigh
from emokd.weights import model_folder

ROWS, K = 12, 4  # of a batch; anchors
NAMES, VISIBLE, POOL = ("eye", "heart", "skin"), ("eye", "skin"), ("eye", "heart", "skin", "joint")
ALIGN = {"distance": 0.3, "task": 0.7, "modality": 0.4}
TOLERANCE = {"rtol": 2e-4, "atol": 2e-6}


def make_config(**changes):
    """Eyes and skin are visible, the heart is privileged; the fusion is one that compiles fast."""
    config = test_mtpkdot.make_config()
    config.modalities.skin.privileged = False
    for name in NAMES:
        config.modalities[name].options = {"widths": (4,)}
    config.width, config.fusion.name, config.fusion.options = 4, "joint_cross_attention", {"recursions": 1, "hidden": 2}
    config.hallucination.options = {"encoder": (6, 3), "decoder": (6,)}
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0})
    for name in config.phases:
        config.phases[name] = defaults.phase(steps=1000, learning_rate=0.1, warmup_percent=0.0)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def build(**changes):
    return test_mtpkdot.build(make_config(**changes), test_mtpkdot.make_examples())


def phase_of(recipe, name):
    return next(phase for phase in recipe.phases if phase.name == name)


def make_state(recipe, config):
    """A state of random numbers, which needs no compiler; statistics are positive."""
    rng = np.random.default_rng(3)
    abstract = jax.eval_shape(lambda: create_state(recipe, config, 3, jax.random.key(0)))
    state = dataclasses.replace(abstract, key=jax.ShapeDtypeStruct((), jnp.int32))
    state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), state)
    return dataclasses.replace(
        state,
        params=jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.7, jnp.float32), state.params),
        stats=jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 1.5, s.shape), jnp.float32), state.stats),
        key=jax.random.key(0),
    )


def make_batch(gaps=True):
    """A row of padding and one without label; with gaps, rows without heart and without skin."""
    (batch,) = test_mtpkdot.batches(test_mtpkdot.make_examples(), make_config())
    batch["mask"] = batch["mask"].at[11].set(False)
    batch["expression"] = batch["expression"].at[5].set(-1)
    if gaps:
        batch["features/heart"] = batch["features/heart"].at[np.array([1, 4, 5])].set(jnp.nan)
        batch["features/skin"] = batch["features/skin"].at[np.array([2, 4])].set(jnp.nan)
    return batch


def inputs(batch, names=NAMES):
    return {name: batch[f"features/{name}"] for name in names}


def has(batch, name):
    """The rows that have a modality, or for the joint teacher all but padding."""
    mask = np.asarray(batch["mask"])
    return mask if name == "joint" else mask & ~np.isnan(np.asarray(batch[f"features/{name}"])).all(1)


def linear(params, x):
    return x @ params["kernel"] + params["bias"][None]


def adapt(params, name, token):
    return linear(params["adapters"][name]["up"], linear(params["adapters"][name]["down"], token))


def cross_entropy(logits, labels):
    """In float64; 0 without a label."""
    z, labels = np.asarray(logits, np.float64), np.asarray(labels)
    values = np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), np.maximum(labels, 0)]
    return np.where(labels >= 0, values, 0.0)


def cosine_distance(a, b):
    return 1 - (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


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


def finite(tree):
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def compare(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), found, expected)


def total_of(terms):
    """coefficient x mean over the rows that count, in NumPy."""
    return sum(t.coefficient * np.asarray(t.values)[np.asarray(t.rows)].mean() for t in terms.values())


@dataclasses.dataclass
class World:
    recipe: object
    state: object
    batch: dict
    forward: object  # (params, batch, the teacher's keep, the student's keep) -> signals of both
    teacher: dict  # float64: features and logits of every teacher, by name
    tokens: dict
    student: object


@pytest.fixture(scope="module")
def world():
    config = make_config()
    recipe = build()
    state, batch = make_state(recipe, config), make_batch()
    joint, student = (functional(recipe.networks[name]) for name in ("joint", "student"))

    @jax.jit
    def forward(params, batch, keep, own_keep):
        theirs, _ = joint(params["teacher"], state.stats["teacher"], inputs(batch), keep)
        own, _ = student(params["student"], state.stats["student"], inputs(batch, VISIBLE), own_keep)
        return theirs, own

    everything = jnp.ones((ROWS, 3), bool), jnp.ones((ROWS, 2), bool)
    theirs, own = jax.tree.map(lambda x: np.asarray(x, np.float64), forward(state.params, batch, *everything))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
    tokens = {name: theirs.intermediates[f"token/{name}"] for name in NAMES}
    teacher = {"joint": (theirs.features, theirs.logits)}
    for name in NAMES:
        adapted = adapt(params, name, tokens[name])
        teacher[name] = adapted, linear(params["aligned_heads"][name]["expression"], adapted)
    return World(recipe, state, batch, forward, teacher, tokens, own)


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
        start = dataclasses.replace(world.state, step=jnp.asarray(recipe.starts()[index], jnp.int32))
        steps[rate] = functools.partial(step, start, {}, world.batch, phase=index)
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
            outcome = recipe.phases[-1].objective(state.params, state.stats, {}, world.batch, state.key, weigh=look)
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


def test_a_modality_kept_out_by_name_is_one_whose_inputs_are_missing(world):
    predict, state, batch = jax.jit(world.recipe.predict), world.state, make_batch(gaps=False)
    named = predict(state.params, state.stats, {}, batch)
    for size in (1, 2):
        for names in itertools.combinations(NAMES, size):
            gone = {f"features/{n}": jnp.full_like(batch[f"features/{n}"], jnp.nan) for n in NAMES if n not in names}
            without = predict(state.params, state.stats, {}, {**batch, **gone})
            np.testing.assert_array_equal(named[f"joint({'+'.join(names)})"].logits, without["joint"].logits)
            assert (np.asarray(named["joint"].logits) != np.asarray(without["joint"].logits)).any()
            if names in (("eye",), ("skin",), ("eye", "heart"), ("heart", "skin")):
                (seen,) = set(names) & set(VISIBLE)
                np.testing.assert_array_equal(named[f"student({seen})"].logits, without["student"].logits)


# Hallucination.


@pytest.fixture(scope="module")
def hallucinated(world):
    """By loss: the step of the phase that learns by it."""
    steps = {}
    for name in ("mmd", "mse", "cosine"):
        changes = {"hallucination__loss": name}
        recipe = build(**changes)
        index = [phase.name for phase in recipe.phases].index("hallucinate")
        step = create_train_step(recipe, make_config(**changes), parameter_labels(recipe))
        steps[name] = functools.partial(step, constants={}, batch=world.batch, phase=index)
    start = dataclasses.replace(world.state, step=jnp.asarray(world.recipe.starts()[2], jnp.int32))
    compute = jax.jit(lambda states: {name: step(states[name]) for name, step in steps.items()})
    states, losses = dict.fromkeys(steps, start), []
    for _ in range(6):
        found = compute(states)
        states = {name: state for name, (state, _) in found.items()}
        losses.append({name: float(metrics["loss/heart"]) for name, (_, metrics) in found.items()})
    return losses, states


def imagine(world):
    """The T-Net by hand, on the teacher's visible tokens side by side, zeros for what is absent."""
    layers = world.state.params["student"]["hallucinators"]["heart"]
    x = np.concatenate([np.where(has(world.batch, n)[:, None], world.tokens[n], 0.0) for n in VISIBLE], 1)
    for part, index in (("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1)):
        layer = layers[part][index]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = x if (part, index) == ("decoder", 1) else np.maximum(x, 0)
    return x


def mmd(own, theirs):
    both = np.concatenate([own, theirs])
    squares = ((both[:, None] - both[None]) ** 2).sum(-1)
    middle = squares.sum() / (len(both) * (len(both) - 1))
    kernels = sum(np.exp(-squares / (middle * 2.0**i)) for i in range(-2, 3))
    signs = np.repeat([1.0, -1.0], len(own)) / len(own)
    return signs @ kernels @ signs


def test_a_hallucinated_token_is_compared_with_the_true_one_where_there_is_one(world, hallucinated):
    rows = has(world.batch, "heart")
    own, theirs = imagine(world)[rows], world.tokens["heart"][rows]
    expected = {"mmd": mmd(own, theirs), "mse": ((own - theirs) ** 2).mean()}
    expected["cosine"] = cosine_distance(own, theirs).mean()
    for name, value in expected.items():
        np.testing.assert_allclose(hallucinated[0][0][name], value, **TOLERANCE)


@pytest.mark.parametrize("name", ["mmd", "mse", "cosine"])
def test_a_few_steps_make_the_hallucination_better(hallucinated, name):
    losses, states = hallucinated
    assert losses[-1][name] < losses[0][name]
    assert finite(states[name].params)


# Modality dropout.


def test_modality_dropout_shows_the_networks_fewer_modalities(world):
    batch, state = make_batch(gaps=False), world.state
    none = {f"objective__{name}": 0.0 for name in ("transport", "centroid", "features")}
    recipes = {rate: build(modality_dropout=rate, **none) for rate in (0.0, 0.9)}

    @jax.jit
    def compute(key):
        return {
            (name, rate): phase_of(recipe, name).objective(state.params, state.stats, {}, batch, key).terms
            for name in ("joint", "student")
            for rate, recipe in recipes.items()
        }

    terms = compute(jax.random.key(7))
    for place, (name, term, count) in enumerate((("joint", "joint", 3), ("student", "student", 2))):
        rows = np.flatnonzero(batch["mask"] & (batch["expression"] >= 0))
        subsets = [s for s in itertools.product((True, False), repeat=count) if any(s)]  # that with all is the first
        answers = []
        for subset in subsets:
            keep = [jnp.ones((ROWS, 3), bool), jnp.ones((ROWS, 2), bool)]
            keep[place] = jnp.broadcast_to(jnp.array(subset)[None], (ROWS, count))
            logits = world.forward(state.params, batch, *keep)[place].logits
            answers.append(cross_entropy(logits, batch["expression"])[rows])
        full, dropped = (np.asarray(terms[name, rate][f"{term}/expression"].values)[rows] for rate in (0.0, 0.9))
        np.testing.assert_allclose(full, answers[0], **TOLERANCE)
        apart = abs(dropped[None] - np.stack(answers))
        np.testing.assert_allclose(apart.min(0), 0.0, atol=1e-5)
        assert (apart.argmin(0) != 0).sum() > len(rows) // 2 and len(set(apart.argmin(0))) > 1


# Encoders from files.


def face_network(width):
    """A network of random numbers, as if read from a file."""
    spec = NetworkSpec("basic_cnn", {"width": width}, preprocessing=Preprocessing(16))
    rng = np.random.default_rng(1)
    params, stats = jax.tree.map(lambda s: rng.uniform(0.1, 1, s.shape).astype(np.float32), functional(spec).abstract)
    return TrainedModel(spec, params, stats, "a file")


def recipe_of_faces(model):
    config = make_config()
    for name in ("eye", "skin"):
        del config.modalities[name]
    config.modalities.face = defaults.modality("image", "basic_cnn", size=16, width=1)
    task = Task({"expression": ("no", "yes")}, ("expression",), {"labelled": 24}, 12, inputs={"features/heart": (3,)})
    return mtpkdot.build(config, task, {"face": model})


def test_a_modalitys_weights_reach_the_teachers_and_the_students_encoder():
    model = face_network(1)
    recipe = recipe_of_faces(model)

    @jax.jit
    def encoders(key):
        return [
            {who: tree[who]["encoders"]["face"]["backbone"] for who in ("teacher", "student")}
            for tree in recipe.init(key)
        ]

    for found, given in zip(encoders(jax.random.key(0)), (model.params, model.stats), strict=True):
        for who in ("teacher", "student"):
            jax.tree.map(np.testing.assert_array_equal, found[who], given["backbone"])


def test_weights_of_another_architecture_are_refused_by_the_modalitys_name():
    recipe = recipe_of_faces(face_network(2))
    with pytest.raises(InputError, match=r"config\.modalities\.face\.init is a basic_cnn with options .*2.*a file"):
        jax.eval_shape(recipe.init, jax.random.key(0))


# Statistics of the arrays.


def moved(examples, offset):
    """The same examples with larger numbers."""
    readers = {name: lambda i, read=read: read(i) * (1 + offset) + offset for name, read in examples.inputs.items()}
    return dataclasses.replace(examples, inputs=readers)


def test_a_run_standardises_by_its_training_split_alone(tmp_path):
    off = {f"phases__{name}__enabled": False for name in ("teach", "joint", "hallucinate", "align")}
    config = make_config(**off, devices=1)
    config.modalities.skin.privileged = True
    config.phases.student = defaults.phase(steps=1, learning_rate=1e-3, warmup_percent=0.0)
    examples = test_mtpkdot.make_examples()
    splits = {
        "train": examples.select(np.arange(13)),  # the last batch of its statistics is mostly padding
        "validation": moved(examples.select(np.arange(13, 18)), 5),
        "test": moved(examples.select(np.arange(18, 24)), -3),
    }
    recipe = test_mtpkdot.build(config, splits["train"])
    state, _ = loop.train(loop.Job(config, recipe, splits, None), tmp_path)
    table = np.stack([examples.inputs["features/eye"](i) for i in range(13)]).astype(np.float64)
    params, stats = jax.device_get(recipe.extract(state.params, state.stats))
    model_folder.save_model(tmp_path / "student", recipe.student_spec, params, stats, {})
    stored = model_folder.load_trained(tmp_path / "student").stats["encoders"]["eye"]["standardizer"]
    np.testing.assert_allclose(stored["mean"], np.nanmean(table, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stored["std"], np.nanstd(table, 0), rtol=1e-5)


# The full-size configurations.


@pytest.mark.parametrize(
    ("name", "shapes", "column", "classes"),
    [
        ("biovid", {"video": (10, 112, 112, 3), "physiology": (1536, 1)}, "expression", ("BL1", "PA4")),
        ("affwild2", {"video": (8, 112, 112, 3), "audio": (64, 98)}, "valence_arousal", ()),
    ],
)
def test_the_full_size_configurations_build_from_the_shapes_that_they_read(name, shapes, column, classes):
    config = configuration.load(f"configs/mtpkdot/{name}.py")
    known = {column: classes} if classes else {}
    task = Task(known, (column,), {"labelled": 1000}, config.batch_size, inputs=shapes)
    recipe = mtpkdot.build(config, task, {})
    assert [phase.name for phase in recipe.phases] == ["teach", "joint", "hallucinate", "align", "student"]
    state = jax.eval_shape(lambda: create_state(recipe, config, len(classes), jax.random.key(0)))
    rows = config.batch_size
    small = jax.eval_shape(make_batch)
    batch = {key: jax.ShapeDtypeStruct((rows,), small[key].dtype) for key in ("id", "view", "mask")}
    for key, shape in shapes.items():
        dtype = jnp.uint8 if key == "video" else jnp.float32
        batch[key] = jax.ShapeDtypeStruct((rows, *shape), dtype)
    target = ((rows,), jnp.int32) if classes else ((rows, 2), jnp.float32)
    batch[column] = jax.ShapeDtypeStruct(*target)
    outcome = jax.eval_shape(recipe.phases[-1].objective, state.params, state.stats, {}, batch, state.key)
    assert outcome.teacher_losses.shape == (rows, 3)
    answers = jax.eval_shape(recipe.predict, state.params, state.stats, {}, batch)
    head = "logits" if classes else "valence_arousal"
    assert {getattr(answers[who], head).shape for who in ("student", "joint", "face")} == {(rows, 2)}
    assert answers["student"].features.shape == (rows, 512)
