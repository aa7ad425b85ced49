"""Weightings against their formulas in float64 NumPy, and the known answers of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from emokd.errors import InputError
from emokd.weighting import chain as weighting
from emokd.weighting import rules
from emokd.weighting.evidence import cross_entropies
from emokd.weighting.transform import initial

LABELLED = {
    "relevance": {"temperature": 0.7},
    "true_probability": {},
    "correct_only": {},
    "ca_mkd": {},
    "most_confident": {"per": "sample"},
}


def weigh(transform, batch, teachers, **evidence):
    weights = initial(batch, teachers)
    new, _ = jax.jit(transform.update)(weights, transform.init(weights), **evidence)
    assert new.dtype == jnp.float32 and new.shape == (batch, teachers)
    return np.asarray(new)


def logits_for(errors):
    """Two-class logits with which each teacher's cross-entropy on class 0 is the given value."""
    p = np.exp(-np.asarray(errors, np.float64))
    with np.errstate(divide="ignore"):
        other = np.log(np.maximum(1 - p, 1e-300))
    return jnp.float32(np.stack([np.log(p), other], -1))


def numpy_errors(logits, targets):
    logits = np.asarray(logits, np.float64)
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    return -(np.asarray(targets, np.float64)[:, None] * log_p).sum(-1), np.exp(log_p)


def numpy_weights(name, logits, targets, temperature=1.0):
    errors, p = numpy_errors(logits, targets)
    batch, teachers = errors.shape
    if name == "relevance":
        return special.softmax(-errors / temperature, -1)
    if name == "true_probability":
        return np.exp(-errors)
    if name == "ca_mkd":
        return (1 - special.softmax(errors, -1)) / (teachers - 1)
    if name == "ebkd":
        entropy = -(p * np.log(p)).sum(-1)
        return 1 - entropy / entropy.sum(-1, keepdims=True)
    if name == "most_confident":
        return np.eye(teachers)[errors.argmin(-1)]
    right = np.array(
        [[targets[b][p[b, k].argmax()] == targets[b].max() for k in range(teachers)] for b in range(batch)]
    )
    return np.array([row / row.sum() if row.any() else np.full(teachers, 1 / teachers) for row in right])


def random_case(seed=0, batch=32, teachers=3, classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(batch, teachers, classes)).astype(np.float32)
    labels = rng.integers(0, classes, batch).astype(np.int32)
    votes = rng.dirichlet(np.ones(classes), batch).astype(np.float32)
    return logits, labels, votes


# Known answers


@pytest.mark.parametrize(
    ("transform", "errors", "expected"),
    [
        (rules.relevance(), [0.0, 1.0], [0.7310586, 0.2689414]),
        (rules.relevance(), [-np.log(0.9), -np.log(0.3)], [0.75, 0.25]),
        (rules.relevance(), [0.4, 0.4, 0.4], [1 / 3, 1 / 3, 1 / 3]),
        (rules.relevance(0.5), [0.0, 1.0], [0.8807971, 0.1192029]),
        (rules.true_probability(), [-np.log(0.9), -np.log(0.3)], [0.9, 0.3]),
        (rules.ca_mkd(), [0.0, 1.0, 2.0], [0.4549847, 0.3776358, 0.1673795]),
        (rules.ca_mkd(), [0.0, 1.0], [0.7310586, 0.2689414]),
        (rules.correct_only(), [0.1, 0.2, 2.0], [0.5, 0.5, 0.0]),
        (rules.correct_only(), [2.0, 3.0, 4.0], [1 / 3, 1 / 3, 1 / 3]),
        (rules.most_confident(), [0.5, 0.1, 2.0], [0.0, 1.0, 0.0]),
        (rules.most_confident("sample"), [0.5, 0.1, 2.0], [0.0, 1.0, 0.0]),
    ],
)
def test_known_answers(transform, errors, expected):
    weights = weigh(
        transform,
        1,
        len(errors),
        teacher_logits=logits_for([errors]),
        labels=jnp.zeros(1, jnp.int32),
    )
    np.testing.assert_allclose(weights[0], expected, atol=2e-7, rtol=1e-6)


@pytest.mark.parametrize("name", [*LABELLED, "ebkd"])
@pytest.mark.parametrize("kind", ["ids", "votes"])
def test_agrees_with_numpy_in_float64(name, kind):
    options = LABELLED.get(name, {})
    logits, labels, votes = random_case()
    labels, targets = (labels, np.eye(5)[labels]) if kind == "ids" else (votes, votes)
    ours = weigh(
        weighting.create(name, **options),
        32,
        3,
        teacher_logits=jnp.asarray(logits),
        labels=jnp.asarray(labels),
    )
    expected = numpy_weights(name, logits, targets, **({"temperature": 0.7} if name == "relevance" else {}))
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_cross_entropies_agree_with_numpy():
    logits, labels, votes = random_case()
    np.testing.assert_allclose(
        cross_entropies(logits, labels),
        numpy_errors(logits, np.eye(5)[labels])[0],
        rtol=1e-5,
    )
    np.testing.assert_allclose(cross_entropies(logits, votes), numpy_errors(logits, votes)[0], rtol=1e-5)


@pytest.mark.parametrize("name", [*LABELLED, "ebkd"])
def test_a_single_teacher_counts_fully(name):
    logits, labels, _ = random_case(teachers=1)
    ours = weigh(
        weighting.create(name),
        32,
        1,
        teacher_logits=jnp.asarray(logits),
        labels=jnp.asarray(labels),
    )
    expected = numpy_weights(name, logits, np.eye(5)[labels]) if name == "true_probability" else np.ones((32, 1))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*LABELLED, "ebkd", "aekd"])
def test_permuting_teachers_permutes_weights_and_constants_do_not_matter(name):
    logits, labels, _ = random_case()
    gradients = np.random.default_rng(1).normal(size=(32, 3, 4)).astype(np.float32)
    transform = weighting.create(name)
    order = np.array([2, 0, 1])

    def weights(logits, gradients):
        return weigh(
            transform,
            32,
            3,
            teacher_logits=jnp.asarray(logits),
            labels=labels,
            gradients=gradients,
        )

    ours = weights(logits, gradients)
    assert np.ptp(ours) > 0.01
    np.testing.assert_allclose(weights(logits[:, order], gradients[:, order]), ours[:, order], atol=2e-6)
    shifted = logits.copy()
    shifted[:, 1] += 7.0
    np.testing.assert_allclose(weights(shifted, gradients), ours, atol=5e-6)


@pytest.mark.parametrize("name", ["relevance", "correct_only", "ca_mkd", "most_confident", "ebkd"])
def test_rows_sum_as_their_paper_says(name):
    logits, labels, _ = random_case()
    ours = weigh(
        weighting.create(name),
        32,
        3,
        teacher_logits=jnp.asarray(logits),
        labels=jnp.asarray(labels),
    )
    np.testing.assert_allclose(ours.sum(1), 2 if name == "ebkd" else 1, rtol=1e-6)


def test_extreme_logits_stay_finite():
    logits = np.zeros((2, 2, 3), np.float32)
    logits[:, 0, 0], logits[:, 1, 1] = 1e4, 1e4
    for name in (*LABELLED, "ebkd"):
        assert np.isfinite(
            weigh(
                weighting.create(name),
                2,
                2,
                teacher_logits=logits,
                labels=jnp.array([0, 2]),
            )
        ).all()
    certain = weigh(rules.ebkd(), 2, 2, teacher_logits=jnp.asarray(logits))
    np.testing.assert_allclose(certain, 0.5)


# Rows without labels, padding, wrong labels


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("kind", ["ids", "votes"])
def test_rows_without_a_label_keep_their_weights(name, kind):
    logits, labels, votes = random_case(batch=4)
    labels[1], votes[1] = -1, 0.0
    given = jnp.asarray(labels if kind == "ids" else votes)
    incoming = jnp.full((4, 3), 0.2, jnp.float32)
    transform = weighting.create(name, **LABELLED[name])
    ours, _ = transform.update(
        incoming,
        transform.init(incoming),
        teacher_logits=jnp.asarray(logits),
        labels=given,
    )
    np.testing.assert_allclose(ours[1], 0.2)
    assert not np.allclose(ours[0], 0.2)


@pytest.mark.parametrize("name", LABELLED)
def test_an_impossible_class_id_is_loud(name):
    logits, labels, _ = random_case(batch=4)
    labels[2:] = 5
    evidence = {"teacher_logits": jnp.asarray(logits), "labels": jnp.asarray(labels)}
    ours = weigh(weighting.create(name, **LABELLED[name]), 4, 3, mask=jnp.arange(4) < 3, **evidence)
    assert np.isnan(ours[2]).all() and np.isfinite(ours[[0, 1, 3]]).all()


def test_an_impossible_class_id_spoils_the_choice_for_a_batch():
    logits, labels, _ = random_case(batch=4)
    labels[2] = 5
    assert np.isnan(weigh(rules.most_confident(), 4, 3, teacher_logits=jnp.asarray(logits), labels=labels)).all()


# Choosing one teacher


def test_most_confident_per_batch_uses_the_mean_over_labelled_rows():
    errors = [[0.1, 0.5], [0.1, 0.5], [3.0, 0.5], [0.0, 9.0]]
    labels = jnp.array([0, 0, 0, -1])
    ours = weigh(
        rules.most_confident(),
        4,
        2,
        teacher_logits=logits_for(errors),
        labels=labels,
    )
    np.testing.assert_array_equal(ours, [[0, 1]] * 4)
    each = weigh(
        rules.most_confident(per="sample"),
        4,
        2,
        teacher_logits=logits_for(errors),
        labels=labels,
    )
    np.testing.assert_array_equal(each, [[1, 0], [1, 0], [0, 1], [0.5, 0.5]])
    none = weigh(
        rules.most_confident(),
        4,
        2,
        teacher_logits=logits_for(errors),
        labels=jnp.full(4, -1),
    )
    np.testing.assert_array_equal(none, np.full((4, 2), 0.5))


def test_only_and_uniform():
    np.testing.assert_array_equal(weigh(rules.only(1), 2, 3), [[0, 1, 0]] * 2)
    out, _ = rules.uniform().update(jnp.zeros((2, 4)), optax.EmptyState())
    np.testing.assert_array_equal(out, np.full((2, 4), 0.25))
    with pytest.raises(InputError, match="there are 3 teachers"):
        weigh(rules.only(3), 2, 3)
