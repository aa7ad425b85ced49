"""Teacher-bounded students: the loss against NumPy, what a teacher can teach, and the mirrored evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import linear_networks
import numpy as np
import pytest
from bounded_setup import build, faces, first_batch, make_config, make_teacher
from linear_networks import LinearNetwork, trained

from emokd.configuration import defaults
from emokd.models.network import functional
from emokd.phase import Context
from emokd.training.state import create_state
from emokd.training.step import _summary, create_train_step, gradients, parameter_labels


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def mixed(examples, votes):
    """The painted faces with every combination of what can be missing; expressions as votes where asked for."""
    labels, affect = examples.columns["expression"].copy(), examples.columns["valence_arousal"].copy()
    labels[::2] = -1
    affect[::5] = np.nan
    affect[1::5, 1] = np.nan  # without arousal alone
    columns = {"expression": labels, "valence_arousal": affect}
    if votes:
        given = np.random.default_rng(0).dirichlet(np.ones(8), len(labels)).astype(np.float32)
        columns = {"votes": np.where(labels[:, None] < 0, 0, given), "valence_arousal": affect}
    return dataclasses.replace(examples, columns=columns, classes={"expression": examples.classes["expression"]})


def keep_pictures(config):
    """No augmentation, so that what networks see can be had from outside."""
    config.data.augment.update({"crop_area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0})
    config.data.augment.update({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0})


def set_settings(config, T, alpha, nu, margin, joint, smoothing):
    config.soft_targets.update({"temperature": T, "alpha": alpha})
    config.bound.update({"nu": nu, "margin": margin, "joint": joint})
    config.label_smoothing = smoothing


def total_by_hand(own, theirs, targets, target, *, T, alpha, nu, margin, joint, smoothing):
    """The paper's formula in float64, face by face: `own` and `theirs` are (logits, valence and arousal).

    L_cls of the labels and L_reg = smoothL1 + nu L_b are means over the faces that are labelled for them, the soft
    targets' part one over all faces. Of a face without arousal valence alone counts.
    """
    labelled, regressions, imitations = [], [], []
    for z_s, r_s, z_t, r_t, q, y in zip(*own, *theirs, targets, target, strict=True):
        if q.sum() > 0:
            labelled.append(-(((1 - smoothing) * q + smoothing / len(q)) * np.log(softmax(z_s))).sum())
        p_t = softmax(z_t / T)
        imitations.append(T**2 * (p_t * np.log(p_t / softmax(z_s / T))).sum())
        given = ~np.isnan(y)
        if not given.any():
            continue
        d_s, d_t = abs(r_s - y)[given], abs(r_t - y)[given]
        smooth_l1 = sum(d**2 / 2 if d < 1 else d - 0.5 for d in d_s)
        pairs = [((d_s**2).sum(), (d_t**2).sum())] if joint else zip(d_s**2, d_t**2, strict=True)
        regressions.append(smooth_l1 + nu * sum(e_s for e_s, e_t in pairs if e_s + margin > e_t))
    return (1 - alpha) * np.mean(labelled) + np.mean(regressions) + alpha * np.mean(imitations)


DEFAULTS = {"T": 4.0, "alpha": 0.5, "nu": 0.5, "margin": 0.0, "joint": False, "smoothing": 0.0}
OTHERS = {"T": 2.0, "alpha": 0.3, "nu": 0.7, "margin": 0.1, "joint": True, "smoothing": 0.1}


def bold_case(data, settings):
    """A recipe whose student and teacher answer boldly, so that now the one, now the other is better."""
    classes = data.classes["expression"]
    # The teacher's classes are in another order, and it knows one more.
    heads, names = {"expression": 9, "valence_arousal": 2}, {"expression": (*classes[::-1], "boredom")}
    teacher = trained(LinearNetwork("one", 5, heads, names), 1)
    config = make_config("one")
    config.batch_size = 24
    if settings is not DEFAULTS:
        set_settings(config, **settings)
    config.phases.head.enabled = True  # evaluation mode, so that a face's answers are its own
    recipe = build(config, {}, data, teachers=[teacher])
    state, batch = create_state(recipe, config, len(classes), jax.random.key(6)), first_batch(data, config)
    own = state.params["student"], state.stats["student"]
    theirs = teacher.model.params, teacher.model.stats
    for (params, stats), factor in ((own, 8.0), (theirs, 6.0)):
        params["heads"] = jax.tree.map(lambda leaf: leaf * factor, params["heads"])  # noqa: B023
        stats["backbone"]["mean"] = jnp.full(3, 0.46)  # the faces' mean colour
    answers = []
    for weights in (own, theirs):
        _, outputs = linear_networks.answers(*weights, batch)
        answers.append([outputs["expression"], outputs["valence_arousal"]])
    answers[1][0] = answers[1][0][:, :8][:, ::-1]
    target = np.asarray(batch["valence_arousal"], np.float64)
    ids = np.asarray(batch["expression"]) if "expression" in batch else None
    targets = np.asarray(batch["votes"], np.float64) if ids is None else np.eye(9)[ids][:, :8]
    return config, recipe, state, batch, (*answers, targets, target)


@pytest.mark.parametrize("votes", [False, True], ids=["ids", "votes"])
@pytest.mark.parametrize("settings", [DEFAULTS, OTHERS], ids=["defaults", "others"])
def test_the_total_is_the_papers_formula(examples, settings, votes):
    config, recipe, state, batch, case = bold_case(mixed(examples, votes), settings)
    kinds = {(bool(e), int(a)) for e, a in zip(case[2].sum(-1) > 0, (~np.isnan(case[3])).sum(-1), strict=True)}
    assert kinds == {(e, a) for e in (False, True) for a in (0, 1, 2)}
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    _, metrics = step(state, recipe.constants, batch, phase=0)
    found = metrics["loss"]
    np.testing.assert_allclose(found, total_by_hand(*case, **settings), rtol=1e-5)
    # Were one setting another, the total would be too, by far more than the tolerance.
    for name, other in (OTHERS if settings is DEFAULTS else DEFAULTS).items():
        changed = total_by_hand(*case, **{**settings, name: other})
        assert abs(changed / found - 1) > 3e-4, name


@pytest.mark.parametrize(("labelled", "microbatches"), [(12, 1), (12, 2), (2, 1), (2, 3)])
def test_nu_is_the_same_however_few_faces_are_labelled(examples, labelled, microbatches):
    """The loss and its gradient where half of the faces, or a tenth, have valence and arousal."""
    columns = {name: examples.columns[name] for name in ("expression", "valence_arousal")}
    classes = {"expression": examples.classes["expression"]}
    data = dataclasses.replace(examples, columns=columns, classes=classes)
    settings = {**DEFAULTS, "nu": 2.0, "margin": 10.0}  # the bound is never silent
    _, recipe, state, batch, (own, *rest) = bold_case(data, settings)
    rest[2][labelled:] = np.nan
    batch["valence_arousal"] = jnp.asarray(rest[2], jnp.float32)

    @jax.jit
    def differentiate(state, batch):
        grads, outcome, weights, _ = gradients(
            recipe, recipe.phases[0], parameter_labels(recipe), state, recipe.constants, batch, microbatches
        )
        return grads["student"]["heads"], _summary(recipe, outcome, weights)

    heads, metrics = differentiate(state, batch)
    np.testing.assert_allclose(metrics["loss"], total_by_hand(own, *rest, **settings), rtol=1e-5)
    for part, head in enumerate(("expression", "valence_arousal")):
        found = np.asarray(heads[head]["bias"])
        for place in range(len(found)):
            sides = []
            for shift in (-1e-6, 1e-6):
                moved = [values.copy() for values in own]
                moved[part][:, place] += shift
                sides.append(total_by_hand(moved, *rest, **settings))
            assert found[place] == pytest.approx((sides[1] - sides[0]) / 2e-6, rel=1e-3, abs=1e-5)
    errors = zip(own[1] - rest[2], rest[0][1] - rest[2], strict=True)
    beaten = [(o**2).sum() < (t**2).sum() for o, t in errors]  # not where they are NaN
    assert metrics["beaten/one"] == pytest.approx(sum(beaten) / labelled)


def mixture(recipe, state, batch, key):
    """The shares a, b, c of EmoNet's loss that the head phase drew with a key, from its values alone."""
    outcome = jax.jit(recipe.phases[0].objective)(state.params, state.stats, recipe.constants, batch, Context(key))
    _, outputs = linear_networks.answers(state.params["student"], state.stats["student"], batch)
    term = outcome.terms["valence_arousal"]
    rows = np.asarray(term.rows)
    p = outputs["valence_arousal"][rows]
    t = np.asarray(batch["valence_arousal"], np.float64)[rows]
    pearson = [np.corrcoef(p[:, h], t[:, h])[0, 1] for h in (0, 1)]
    bias = (p.mean(0) - t.mean(0)) ** 2
    concordance = [2 * np.cov(p[:, h], t[:, h], bias=True)[0, 1] / (p.var(0) + t.var(0) + bias)[h] for h in (0, 1)]
    ones = np.ones(len(p))
    parts = np.stack([((p - t) ** 2).sum(1), ones * (1 - np.mean(pearson)), ones * (1 - np.mean(concordance))], 1)
    # Every row says a squared + (b [1 - PCC] + c [1 - CCC]), and a + b + c = 1.
    equations, values = np.vstack([parts, np.ones(3)]), np.append(np.asarray(term.values, np.float64)[rows], 1)
    shares, *_ = np.linalg.lstsq(equations, values, rcond=None)
    np.testing.assert_allclose(equations @ shares, values, atol=1e-4)
    return shares


def make_mixed_loss(examples):
    config = make_config()
    keep_pictures(config)
    config.affect_loss = "emonet"
    config.phases.head = defaults.phase(steps=2, learning_rate=0.0, warmup_percent=0.0)
    data = faces(examples)
    recipe = build(config, {}, data)
    return config, recipe, create_state(recipe, config, 8, jax.random.key(3)), first_batch(data, config)


def test_emonets_loss_is_mixed_by_the_key(examples):
    _, recipe, state, batch = make_mixed_loss(examples)
    first, again, other = (mixture(recipe, state, batch, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 0.02
    for shares in (first, other):
        assert shares.sum() == pytest.approx(1, abs=1e-3) and ((shares > 0) & (shares < 1)).all()


def test_two_steps_of_one_state_mix_emonets_loss_afresh(examples):
    """Nothing moves at a learning rate of 0, so that the mixture alone makes the second step's loss another."""
    config, recipe, state, batch = make_mixed_loss(examples)
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    after, first = step(state, {}, batch, phase=0)
    _, repeated = step(state, {}, batch, phase=0)
    _, second = step(after, {}, batch, phase=0)
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert first["loss/valence_arousal"] == repeated["loss/valence_arousal"]
    assert first["loss/expression"] == second["loss/expression"]
    assert abs(first["loss/valence_arousal"] / second["loss/valence_arousal"] - 1) > 1e-3


@pytest.mark.parametrize("votes", [False, True], ids=["ids", "votes"])
def test_the_logged_accuracy_is_that_of_labelled_faces(examples, votes):
    data = mixed(examples, votes)
    config = make_config()
    config.batch_size = 24
    keep_pictures(config)
    config.phases.head.enabled = True
    recipe = build(config, {}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    said = np.asarray(recipe.predict(state.params, state.stats, {}, batch)["student"].logits).argmax(-1)
    column = "votes" if votes else "expression"
    # The labels are made to be what the student says, but for one face.
    labelled = np.asarray(batch["votes"]).sum(-1) > 0 if votes else np.asarray(batch[column]) >= 0
    wanted = said.copy()
    wanted[np.flatnonzero(labelled)[0]] = (said[np.flatnonzero(labelled)[0]] + 1) % 8
    values = (
        np.where(labelled[:, None], np.eye(8, dtype=np.float32)[wanted], 0) if votes else np.where(labelled, wanted, -1)
    )
    step = jax.jit(create_train_step(recipe, config, parameter_labels(recipe)), static_argnames="phase")
    _, metrics = step(state, {}, {**batch, column: jnp.asarray(values, batch[column].dtype)}, phase=0)
    assert 4 < labelled.sum() < 20
    assert metrics["accuracy"] == pytest.approx(1 - 1 / labelled.sum())
    _, metrics = step(state, {}, {**batch, column: jnp.asarray(0 * values - (not votes), batch[column].dtype)}, phase=0)
    assert metrics["accuracy"] == 0 and np.isfinite(list(metrics.values())).all()


def test_without_soft_targets_and_bound_the_teacher_is_not_even_asked(examples):
    data = faces(examples)
    config = make_config("one")
    config.soft_targets.alpha, config.bound.nu = 0.0, 0.0
    recipe = build(config, {"one": make_teacher(data.classes["expression"])}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), recipe.constants)
    outcome = recipe.phases[0].objective(state.params, state.stats, nan, batch, Context(jax.random.key(0)))
    assert outcome.teacher_losses is None
    assert outcome.terms["expression"].coefficient == 1.0
    assert all(np.isfinite(np.asarray(term.values)).all() for term in outcome.terms.values())


def test_a_teacher_of_valence_and_arousal_alone_bounds_and_does_not_classify(examples):
    data = faces(examples)
    config = make_config("one")
    recipe = build(config, {"one": make_teacher((), heads=("valence_arousal",))}, data)
    state, batch = create_state(recipe, config, 8, jax.random.key(config.seed)), first_batch(data, config)
    outcome = recipe.phases[0].objective(state.params, state.stats, recipe.constants, batch, Context(jax.random.key(0)))
    assert outcome.terms["expression"].coefficient == 1.0  # nobody's soft targets share the weight
    unlabelled = np.isnan(np.asarray(batch["valence_arousal"])).any(-1)
    assert (np.asarray(outcome.teacher_losses) == 0).all()
    bound = outcome.teacher_terms["bound"]
    assert (np.asarray(bound.values)[unlabelled] == 0).all() and (np.asarray(bound.values) > 0).any()
    np.testing.assert_array_equal(bound.rows, ~unlabelled)
    assert "beaten/one" in outcome.metrics


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
        np.asarray(r.phases[0].objective(state.params, state.stats, {}, batch, Context(key)).terms["expression"].values)
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


@pytest.mark.parametrize(("alpha", "data", "share"), [(1.0, "all", 3), (0.5, "all", 3), (0.0, "labelled", 1)])
def test_faces_without_a_label_are_read_where_a_teacher_has_soft_targets(examples, alpha, data, share):
    """An epoch is one of all faces then; with nothing but bounds or labels they would teach nothing."""
    examples = faces(examples)
    config = make_config("first")
    config.soft_targets.alpha = alpha
    config.phases.distill = defaults.phase(epochs=2, learning_rate=1e-2)
    config.phases.head = defaults.phase(epochs=2, learning_rate=1e-2)
    head, distill = build(config, {"first": make_teacher(examples.classes["expression"])}, examples).phases
    assert (head.data, distill.data) == ("labelled", data)
    assert distill.steps == 2 * (share * len(examples) // config.batch_size)
