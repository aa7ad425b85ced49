"""Weightings in a chain: AEKD's programme, state, padding, configuration, and what is refused."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from scipy import optimize, special, stats

from emokd.errors import InputError
from emokd.weighting import chain as weighting
from emokd.weighting import modifiers, rules
from emokd.weighting.transform import initial


def weigh(transform, batch, teachers, **evidence):
    weights = initial(batch, teachers)
    new, _ = jax.jit(transform.update)(weights, transform.init(weights), **evidence)
    return np.asarray(new)


def random_case(batch=32, teachers=3, classes=5):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(batch, teachers, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, batch).astype(np.int32)


@pytest.mark.parametrize(
    "spec",
    [
        "relevance",
        "true_probability",
        "correct_only",
        "ca_mkd",
        "most_confident",
        {"name": "most_confident", "per": "sample"},
        "ebkd",
        "aekd",
        "uniform",
        {"name": "only", "teacher": 2},
        [{"name": "relevance"}, {"name": "smooth", "decay": 0.5}, {"name": "floor", "minimum": 0.1}],
        [{"name": "relevance"}, {"name": "anneal", "schedule": 4}],
    ],
)
def test_padding_counts_for_nothing(spec):
    logits, labels = random_case(batch=6)
    gradients = np.random.default_rng(1).normal(size=(6, 3, 4)).astype(np.float32)
    transform = weighting.create(spec)
    update = jax.jit(transform.update)

    def two_steps(rows, mask):
        weights = initial(rows, 3)
        state = transform.init(weights)
        for _ in range(2):
            evidence = {"teacher_logits": logits[:rows], "labels": labels[:rows], "gradients": gradients[:rows]}
            out, state = update(weights, state, mask=mask, **evidence)
        return np.asarray(out), state

    alone, alone_state = two_steps(4, jnp.ones(4, bool))
    logits[4:], gradients[4:] = np.nan, np.nan
    padded, padded_state = two_steps(6, jnp.arange(6) < 4)
    np.testing.assert_allclose(padded[:4], alone, atol=2e-6)
    np.testing.assert_array_equal(padded[4:], 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), padded_state, alone_state)


# AEKD


def slsqp(gradients, bound):
    rows = gradients.transpose(1, 0, 2).reshape(gradients.shape[1], -1).astype(np.float64)
    gram = rows @ rows.T / np.abs(rows).max() ** 2
    start = np.full(len(rows), 1 / len(rows))
    return optimize.minimize(
        lambda a: a @ gram @ a / 2,
        start,
        jac=lambda a: gram @ a,
        bounds=[(0, bound)] * len(rows),
        constraints={
            "type": "eq",
            "fun": lambda a: a.sum() - 1,
            "jac": lambda a: np.ones(len(rows)),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).x


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_aekd_agrees_with_slsqp(scale):
    rng = np.random.default_rng(0)
    transform = jax.jit(lambda g: weigh_aekd(g, 0.6))
    for shared in (0.0, 1.0, 3.0):
        gradients = (rng.normal(size=(6, 1, 4)) * shared + rng.normal(size=(6, 4, 4))) * rng.lognormal(size=(1, 4, 1))
        ours = np.asarray(transform(jnp.float32(gradients * scale)))
        np.testing.assert_array_equal(ours, np.broadcast_to(ours[:1], ours.shape))
        np.testing.assert_allclose(ours[0], slsqp(gradients, 0.6), atol=1e-4)


def weigh_aekd(gradients, bound):
    transform = rules.aekd(bound)
    weights = initial(*gradients.shape[:2])
    return jax.jit(transform.update)(weights, transform.init(weights), gradients=gradients)[0]


def test_aekd_where_there_is_little_to_choose():
    equal = jnp.broadcast_to(jnp.float32(np.random.default_rng(0).normal(size=(5, 1, 4))), (5, 3, 4))
    np.testing.assert_allclose(weigh_aekd(equal, 0.6), np.full((5, 3), 1 / 3), atol=1e-5)
    np.testing.assert_allclose(weigh_aekd(jnp.zeros((5, 3, 4)), 0.6), np.full((5, 3), 1 / 3), atol=1e-5)
    np.testing.assert_allclose(weigh_aekd(jnp.ones((5, 1, 4)), 1.0), np.ones((5, 1)), atol=1e-6)
    # Two equal teachers and a third that opposes them: half the weight on it, the rest shared alike.
    twins = jnp.stack([jnp.ones((5, 4)), jnp.ones((5, 4)), -jnp.ones((5, 4))], 1)
    np.testing.assert_allclose(weigh_aekd(twins, 0.6)[0], [0.25, 0.25, 0.5], atol=1e-4)


def test_aekd_bound_that_nobody_can_obey():
    with pytest.raises(InputError, match="cannot sum to 1"):
        weigh_aekd(jnp.ones((5, 3, 4)), 0.3)


# Chains


def test_where_unlabelled_gives_each_part_its_own_rows():
    logits, labels = random_case(batch=6)
    labels[[1, 4]] = -1
    transform = weighting.create(
        {
            "name": "where_unlabelled",
            "labelled": {"name": "relevance"},
            "unlabelled": [{"name": "ebkd"}],
        }
    )
    ours = weigh(transform, 6, 3, teacher_logits=jnp.asarray(logits), labels=jnp.asarray(labels))
    for row in range(6):
        log_p = special.log_softmax(logits[row].astype(np.float64), -1)
        entropy = -(np.exp(log_p) * log_p).sum(-1)
        expected = 1 - entropy / entropy.sum() if labels[row] < 0 else special.softmax(log_p[:, labels[row]])
        np.testing.assert_allclose(ours[row], expected, atol=2e-6)


def test_statistics_inside_where_unlabelled_are_of_its_rows():
    logits = jnp.broadcast_to(jnp.float32([[[1.0, 0.0], [0.0, 1.0]]]), (3, 2, 2))
    labels = jnp.array([0, -1, 0])
    transform = modifiers.where_unlabelled(
        optax.chain(rules.relevance(), modifiers.smooth(0.5)),
        optax.chain(rules.uniform(), modifiers.smooth(0.5)),
    )
    weights = initial(3, 2)
    out, state = transform.update(weights, transform.init(weights), teacher_logits=logits, labels=labels)
    np.testing.assert_allclose(state.labelled[1].average, out[0], rtol=1e-6)
    np.testing.assert_allclose(state.unlabelled[1].average, [0.5, 0.5], rtol=1e-6)


def test_smooth_is_a_corrected_moving_average():
    rng = np.random.default_rng(0)
    batches = rng.dirichlet(np.ones(3), (5, 4)).astype(np.float32)
    transform = modifiers.smooth(0.8)
    state = transform.init(initial(4, 3))
    raw, earlier = np.zeros(3), np.zeros(3)
    for step, batch in enumerate(batches, start=1):
        rows, state = transform.update(jnp.asarray(batch), state)
        raw = 0.8 * raw + 0.2 * batch.astype(np.float64).mean(0)
        average = raw / (1 - 0.8**step)
        np.testing.assert_allclose(state.average, average, rtol=1e-5)
        np.testing.assert_allclose(rows.mean(0), average, rtol=1e-5)
        kept = 0.8 * (1 - 0.8 ** (step - 1)) / (1 - 0.8**step)
        np.testing.assert_allclose(rows, kept * earlier + (1 - kept) * batch, rtol=1e-5)
        earlier = average
    empty, after = transform.update(jnp.asarray(batches[0]), state, mask=jnp.zeros(4, bool))
    np.testing.assert_array_equal(empty, 0)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_floor_keeps_the_sum_and_lifts_the_least():
    transform = modifiers.floor(0.1)
    out, _ = transform.update(
        jnp.float32([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [2.0, 2.0, 2.0, 2.0]]),
        optax.EmptyState(),
    )
    np.testing.assert_allclose(out, [[0.7, 0.1, 0.1, 0.1], [0.4, 0.4, 0.1, 0.1], [2, 2, 2, 2]], rtol=1e-6)
    with pytest.raises(InputError, match="cannot each have more"):
        weigh(modifiers.floor(0.3), 1, 4)


def test_anneal_goes_from_uniform_to_the_weights():
    for schedule in (2, lambda count: count.astype(jnp.float32) / 2):
        transform = weighting.create([{"name": "only", "teacher": 0}, {"name": "anneal", "schedule": schedule}])
        weights = initial(1, 2)
        state, seen = transform.init(weights), []
        for _ in range(4):
            out, state = transform.update(weights, state)
            seen.append(float(out[0, 0]))
        np.testing.assert_allclose(seen, [0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize("name", ["aekd", "most_confident", "smooth"])
def test_batch_statistics_are_those_of_the_global_batch(name):
    logits, labels = random_case(batch=16)
    gradients = np.random.default_rng(1).normal(size=(16, 3, 4)).astype(np.float32)
    spec = [{"name": "relevance"}, {"name": "smooth", "decay": 0.5}] if name == "smooth" else name
    transform = weighting.create(spec)
    weights = initial(16, 3)
    evidence = {"teacher_logits": logits, "labels": labels, "gradients": gradients}
    alone, alone_state = jax.jit(transform.update)(weights, transform.init(weights), **evidence)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    split_weights, split_evidence = jax.device_put((weights, evidence), rows)
    split, split_state = jax.jit(transform.update)(split_weights, transform.init(weights), **split_evidence)
    assert len(split_weights.sharding.device_set) == 8
    np.testing.assert_allclose(split, alone, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), split_state, alone_state)


def test_one_compiled_step_with_a_steady_state_and_no_gradient():
    logits, labels = random_case()
    gradients = np.random.default_rng(1).normal(size=(32, 3, 4)).astype(np.float32)
    for name in weighting.WEIGHTINGS:
        options = {
            "only": {"teacher": 0},
            "smooth": {"decay": 0.9},
            "floor": {"minimum": 0.1},
            "anneal": {"schedule": 10},
            "where_unlabelled": {"labelled": "relevance", "unlabelled": "ebkd"},
        }.get(name, {})
        transform = weighting.create(name, **options)
        weights = initial(32, 3)
        state = transform.init(weights)
        evidence = {
            "teacher_logits": jnp.asarray(logits),
            "labels": jnp.asarray(labels),
            "gradients": gradients,
        }
        traces = []

        @jax.jit
        def step(weights, state, evidence, transform=transform, traces=traces):
            traces.append(1)
            return transform.update(weights, state, **evidence)

        for _ in range(3):
            _, new = step(weights, state, evidence)
            assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
            state = new
        assert len(traces) == 1
        wider = transform.init(initial(32, 5))
        assert jax.tree.structure(wider) == jax.tree.structure(state)

        def total(logits, gradients, incoming, transform=transform, state=state):
            given = {
                "teacher_logits": logits,
                "labels": jnp.asarray(labels),
                "gradients": gradients,
            }
            out, _ = transform.update(incoming, state, **given)
            return (out * jnp.arange(3.0)[None]).sum()

        slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(jnp.asarray(logits), jnp.asarray(gradients), weights)
        assert all((np.asarray(slope) == 0).all() for slope in slopes)


def test_a_random_teacher_is_each_as_often_and_drawn_again_by_a_run_that_continues():
    transform = rules.random_teacher()
    update = jax.jit(transform.update)
    state = transform.init(initial(4, 3))
    drawn = []
    for batch in range(300):
        weights, state = update(initial(4, 3), state, mask=jnp.arange(4) < 3)
        np.testing.assert_array_equal(weights[:3], np.broadcast_to(np.eye(3)[int(weights[0].argmax())], (3, 3)))
        np.testing.assert_array_equal(weights[3], 0)
        drawn.append(int(weights[0].argmax()))
        if batch == 149:
            halfway = state
    counts = np.bincount(drawn, minlength=3)
    assert stats.chisquare(counts).pvalue > 1e-4, counts
    again = []
    for _ in range(150):
        weights, halfway = update(initial(4, 3), halfway)
        again.append(int(weights[0].argmax()))
    assert again == drawn[150:]
    each = weigh(rules.random_teacher("sample", seed=1), 300, 3).argmax(1)
    assert stats.chisquare(np.bincount(each, minlength=3)).pvalue > 1e-4


# Configuration and wrong input


def test_create_names_what_is_wrong():
    for spec, options, message in [
        ("relevence", {}, "Did you mean 'relevance'"),
        ("relevance", {"temprature": 1.0}, "Did you mean 'temperature'"),
        ("smooth", {}, "needs the option 'decay'"),
        ([{"decay": 0.9}], {}, "has no 'name'"),
        ([], {}, "empty list"),
        ([3], {}, "not 3"),
        ([{"name": "relevance"}], {"temperature": 1.0}, "put them into it"),
        ("relevance", {"temperature": 0.0}, "must be positive"),
        ("relevance", {"temperature": "hot"}, "cannot be made"),
        ("smooth", {"decay": 1.0}, "below 1"),
        ("floor", {"minimum": -0.1}, "not be negative"),
        ("anneal", {"schedule": 0}, "1 or more"),
        ("aekd", {"bound": 0.0}, "must be positive"),
        ("only", {"teacher": -1}, "counted from 0"),
        ("most_confident", {"per": "samples"}, "Did you mean 'sample'"),
    ]:
        with pytest.raises(InputError, match=message):
            weighting.create(spec, **options)


@pytest.mark.parametrize("make", [list, lambda spec: ml_collections.ConfigDict({"weighting": tuple(spec)}).weighting])
def test_configuration_says_whether_gradients_are_needed(make):
    spec = make([{"name": "relevance"}, {"name": "smooth", "decay": 0.5}])
    assert not weighting.needs_gradients(spec) and len(weighting.create(spec).init(initial(2, 2))) == 2
    nested = make([{"name": "where_unlabelled", "labelled": "relevance", "unlabelled": [{"name": "aekd"}]}])
    assert weighting.needs_gradients(nested)
    assert weighting.needs_logits(spec) and weighting.needs_logits(nested)
    for asks_nothing in ("uniform", "aekd", "random_teacher", {"name": "only", "teacher": 0}):
        assert not weighting.needs_logits(make([asks_nothing, {"name": "floor", "minimum": 0.1}]))
    weights = weigh(
        weighting.create(nested),
        2,
        2,
        gradients=jnp.ones((2, 2, 3)),
        labels=jnp.array([-1, 0]),
        teacher_logits=jnp.zeros((2, 2, 3)),
    )
    np.testing.assert_allclose(weights, 0.5, atol=1e-5)


def test_missing_or_misshapen_evidence_is_named():
    logits, labels, votes = (
        jnp.zeros((4, 2, 5)),
        jnp.zeros(4, jnp.int32),
        jnp.zeros((4, 5)),
    )
    for name, evidence, message in [
        ("relevance", {"labels": labels}, "needs 'teacher_logits'"),
        ("ca_mkd", {"teacher_logits": logits}, "needs 'labels'"),
        ("aekd", {}, "needs 'gradients'"),
        (
            "relevance",
            {"teacher_logits": logits[:3], "labels": labels},
            "teacher_logits must be",
        ),
        (
            "relevance",
            {"teacher_logits": logits, "labels": labels[:3]},
            "labels must be",
        ),
        (
            "relevance",
            {"teacher_logits": logits, "labels": labels.astype(jnp.float32)},
            "labels must be",
        ),
        ("relevance", {"teacher_logits": logits, "labels": votes[:, :4]}, "4 classes"),
        ("aekd", {"gradients": jnp.zeros((4, 3, 5))}, "gradients must be"),
        ("uniform", {"mask": jnp.ones(4)}, "mask must be bool"),
    ]:
        with pytest.raises(InputError, match=message):
            weigh(weighting.create(name), 4, 2, **evidence)
    with pytest.raises(InputError, match="must be float32"):
        rules.uniform().update(jnp.ones(4), optax.EmptyState())
    with pytest.raises(InputError, match="at least one example"):
        initial(0, 2)
