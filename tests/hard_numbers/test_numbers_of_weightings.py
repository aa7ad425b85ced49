"""Every weighting at hard numbers, against float64: never NaN for numbers, in [0, 1], padding at 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_setup import LARGEST, exact, masks, matrices
from scipy import special

from emokd.weighting import chain as weighting
from emokd.weighting.transform import initial

TEACHERS, CLASSES = 3, 4
ROWS = st.sampled_from((2, 5))


@functools.cache
def compiled(spec):
    transform = weighting.create([dict(part) for part in spec])

    def weigh(evidence):
        weights = initial(evidence["mask"].shape[0], TEACHERS)
        return transform.update(weights, transform.init(weights), **evidence)[0]

    return jax.jit(weigh)


def weigh(name, options=(), **evidence):
    weights = np.asarray(compiled(((("name", name), *options),))(jax.tree.map(jnp.asarray, evidence)))
    assert np.isfinite(weights).all() and (weights >= 0).all() and not weights[~evidence["mask"]].any()
    return weights.astype(np.float64)


def softmax(x):
    return special.softmax(x, -1)


def errors_of(logits, labels):
    """In float64, and no larger than float32 can hold."""
    chosen = np.take_along_axis(special.log_softmax(exact(logits), -1), np.maximum(labels, 0)[:, None, None], -1)
    return np.minimum(-chosen[..., 0], LARGEST)


def right(logits, labels):
    right = exact(logits).argmax(-1) == labels[:, None]
    return np.where(right.any(-1, keepdims=True), right / np.maximum(right.sum(-1, keepdims=True), 1), 1 / TEACHERS)


RULES = {
    "relevance": lambda logits, labels: softmax(-errors_of(logits, labels)),
    "true_probability": lambda logits, labels: np.exp(-errors_of(logits, labels)),
    "ca_mkd": lambda logits, labels: (1 - softmax(errors_of(logits, labels))) / (TEACHERS - 1),
    "correct_only": right,
}


@st.composite
def evidence(draw):
    rows = draw(ROWS)
    labels = draw(st.lists(st.integers(-1, CLASSES - 1), min_size=rows, max_size=rows))
    return {
        "teacher_logits": draw(matrices((rows, TEACHERS, CLASSES))),
        "labels": np.array(labels, np.int32),
        "mask": draw(masks(rows)),
    }


@pytest.mark.parametrize("name", RULES)
@given(given_evidence=evidence())
def test_rules_by_label(name, given_evidence):
    logits, labels, mask = given_evidence.values()
    expected = np.where((labels >= 0)[:, None], RULES[name](logits, labels), 1 / TEACHERS)
    # A difference of errors of 1e8 is lost to rounding in float32, and so is who is better by it.
    errors = errors_of(logits, labels)
    gap = np.abs(errors[:, :, None] - errors[:, None])
    clear = mask & ~((gap > 0) & (gap < 1e-5 * errors.max(-1)[:, None, None])).any((1, 2)) | (name == "correct_only")
    found = weigh(name, **given_evidence)
    np.testing.assert_allclose(found[clear & mask], expected[clear & mask], rtol=1e-4, atol=1e-4)


@given(evidence())
def test_ebkd(given_evidence):
    found = weigh("ebkd", **given_evidence)
    log_p = special.log_softmax(exact(given_evidence["teacher_logits"]), -1)
    entropy = -np.where(np.exp(log_p) == 0, 0, np.exp(log_p) * log_p).sum(-1)
    total, mask = entropy.sum(-1, keepdims=True), given_evidence["mask"]
    expected = 1 - np.where(total < 1e-30, 1 / TEACHERS, entropy / np.where(total < 1e-30, 1, total))
    clear = mask & ((total[:, 0] > 1e-4) | (total[:, 0] == 0))
    np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[mask].sum(-1), TEACHERS - 1, rtol=1e-4)


@pytest.mark.parametrize("per", ["batch", "sample"])
@given(given_evidence=evidence())
def test_most_confident_chooses_one_of_the_least_error(per, given_evidence):
    logits, labels, mask = given_evidence.values()
    found, errors = weigh("most_confident", (("per", per),), **given_evidence), errors_of(logits, labels)
    scored = mask & (labels >= 0)
    np.testing.assert_array_equal(np.sort(found[scored])[:, ::-1], np.eye(1, TEACHERS).repeat(scored.sum(), 0))
    if per == "batch":
        errors = np.broadcast_to((errors * scored[:, None] / len(mask)).sum(0), errors.shape)
    chosen = (found * errors)[scored].sum(-1)
    assert (chosen <= errors.min(-1)[scored] + 1e-4 * errors.max(-1, initial=0)[scored] + 1e-6).all()


@given(st.data(), ROWS)
def test_aekd_finds_the_least_norm(data, rows):
    gradients = data.draw(matrices((rows, TEACHERS, 2)))
    mask = data.draw(masks(rows))
    found = weigh("aekd", gradients=gradients, mask=mask)
    if not mask.any():
        return
    assert (found[mask] == found[mask][:1]).all() and (found <= 0.6 + 1e-6).all()
    assert abs(found[mask][0].sum() - 1) < 1e-5
    flat = exact(gradients)[mask].transpose(1, 0, 2).reshape(TEACHERS, -1)
    flat = flat / max(np.abs(flat).max(), 1e-300)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 0.6, 25)] * 2), -1).reshape(-1, 2)
    grid = np.concatenate([grid, 1 - grid.sum(-1, keepdims=True)], -1)
    grid = grid[(grid[:, 2] >= 0) & (grid[:, 2] <= 0.6)]
    best = (np.linalg.norm(grid @ flat, axis=-1) ** 2).min()
    assert np.linalg.norm(found[mask][0] @ flat) ** 2 <= best + 1e-4


MODIFIERS = {"smooth": {"decay": 0.9}, "floor": {"minimum": 0.2}, "anneal": {"schedule": 10}}
FIRST = {
    "smooth": lambda w: w,
    "floor": lambda w: 0.2 * w.sum(-1, keepdims=True) + 0.4 * w,
    "anneal": lambda w: np.full_like(w, 1 / TEACHERS),
}


@pytest.mark.parametrize("name", MODIFIERS)
@given(given_evidence=evidence())
def test_modifiers(name, given_evidence):
    mask = given_evidence["mask"]
    before = weigh("relevance", **given_evidence)
    program = compiled(((("name", "relevance"),), (("name", name), *MODIFIERS[name].items())))
    found = np.asarray(program(jax.tree.map(jnp.asarray, given_evidence)))
    np.testing.assert_allclose(found, np.where(mask[:, None], FIRST[name](before), 0), rtol=1e-5, atol=1e-6)


@given(st.data(), ROWS)
def test_given_errors_may_be_as_large_as_numbers_get(data, rows):
    errors, mask = np.abs(data.draw(matrices((rows, TEACHERS))).astype(np.float32)), data.draw(masks(rows))
    for name in ("relevance", "true_probability", "ca_mkd", "most_confident"):
        weigh(name, errors=errors, mask=mask)
