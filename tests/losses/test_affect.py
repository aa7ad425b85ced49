"""Losses against labels, compared with PyTorch: values, gradients, missing labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses import affect

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


def random_affect(rows=7):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, rows, 2)).astype(np.float32)


# Expressions


@pytest.mark.parametrize("kind", ["ids", "votes"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_agrees_with_pytorch(kind, smoothing, weighted):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)).astype(np.float32) * 3
    labels = rng.integers(0, 4, 6) if kind == "ids" else rng.dirichlet(np.ones(4), 6).astype(np.float32)
    class_weights = np.array([0.5, 1.0, 2.0, 3.0], np.float32) if weighted else None
    parameter = torch.tensor(logits, requires_grad=True)
    expected = F.cross_entropy(
        parameter,
        torch.tensor(labels),
        weight=None if class_weights is None else torch.tensor(class_weights),
        reduction="none",
        label_smoothing=smoothing,
    )
    expected.sum().backward()
    given = jnp.asarray(labels, jnp.int32 if kind == "ids" else jnp.float32)
    values, backward = jax.vjp(
        lambda z: affect.cross_entropy(z, given, label_smoothing=smoothing, class_weights=class_weights),
        jnp.asarray(logits),
    )
    np.testing.assert_allclose(values, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backward(jnp.ones(6))[0], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["ids", "votes"])
def test_unlabelled_rows_have_no_loss_and_no_gradient(kind):
    logits = jnp.array([[0.3, -0.2, 0.1], [5.0, 0.0, 0.0]])
    labels = jnp.array([1, -1]) if kind == "ids" else jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    values, backward = jax.vjp(lambda z: affect.cross_entropy(z, labels, label_smoothing=0.1), logits)
    slopes = backward(jnp.ones(2))[0]
    assert values[0] > 0 and values[1] == 0
    assert np.abs(slopes[0]).max() > 0.1
    np.testing.assert_array_equal(slopes[1], 0)


def test_impossible_class_ids_are_loud():
    values = jax.jit(affect.cross_entropy)(jnp.zeros((3, 4)), jnp.array([3, 4, 0]))
    np.testing.assert_array_equal(np.isnan(values), [False, True, False])


def test_a_class_masked_out_of_the_logits_is_allowed():
    logits = jnp.array([[1.0, -jnp.inf, 0.0]])
    value, slope = jax.value_and_grad(lambda z: affect.cross_entropy(z, jnp.array([0])).sum())(logits)
    np.testing.assert_allclose(value, np.log(1 + np.exp(-1)), rtol=1e-6)
    assert np.isfinite(slope).all()


def test_cross_entropy_refuses_what_does_not_fit():
    logits = jnp.zeros((3, 4))
    for labels in (jnp.zeros(2, jnp.int32), jnp.zeros((3, 5)), jnp.zeros(3), jnp.zeros((3, 4), jnp.int32)):
        with pytest.raises(InputError, match="Labels for logits"):
            affect.cross_entropy(logits, labels)
    with pytest.raises(InputError, match="class_weights"):
        affect.cross_entropy(logits, jnp.zeros(3, jnp.int32), class_weights=[1.0, 2.0])
    with pytest.raises(InputError, match="at most 1"):
        affect.cross_entropy(logits, jnp.zeros(3, jnp.int32), label_smoothing=1.5)
    with pytest.raises(InputError, match="batch, classes"):
        affect.cross_entropy(jnp.zeros(3), jnp.zeros(3, jnp.int32))


# Valence and arousal


def torch_ccc(p, t):
    covariance = ((p - p.mean()) * (t - t.mean())).mean()
    return 2 * covariance / (p.var(correction=0) + t.var(correction=0) + (p.mean() - t.mean()) ** 2)


def torch_pcc(p, t):
    return torch.corrcoef(torch.stack([p, t]))[0, 1]


REFERENCES = {
    "mse": lambda p, t: F.mse_loss(p, t, reduction="none").sum(-1).mean(),
    "smooth_l1": lambda p, t: F.smooth_l1_loss(p, t, reduction="none").sum(-1).mean(),
    "ccc": lambda p, t: 1 - (torch_ccc(p[:, 0], t[:, 0]) + torch_ccc(p[:, 1], t[:, 1])) / 2,
    "pcc": lambda p, t: 1 - (torch_pcc(p[:, 0], t[:, 0]) + torch_pcc(p[:, 1], t[:, 1])) / 2,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_affect_losses_agree_with_pytorch_on_the_labelled_rows(name):
    prediction, target = random_affect(rows=9)
    keep = np.array([0, 1, 3, 4, 6, 8])
    parameter = torch.tensor(prediction[keep], requires_grad=True)
    expected = REFERENCES[name](parameter, torch.tensor(target[keep]))
    expected.backward()
    missing, mask = target.copy(), np.ones(9, bool)
    missing[[2, 5]], mask[7] = np.nan, False
    padded = prediction.copy()
    padded[7] = np.nan

    def mean_loss(prediction):
        values = affect.AFFECT_LOSSES[name](prediction, jnp.asarray(missing), mask=jnp.asarray(mask))
        return values.sum() / len(keep), values

    (value, values), slope = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(jnp.asarray(padded))
    assert values.shape == (9,)
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(slope[keep], parameter.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slope[np.array([2, 5, 7])], 0)
    np.testing.assert_array_equal(values[np.array([2, 5, 7])], 0)


def test_known_answers_of_smooth_l1():
    values = affect.smooth_l1(jnp.array([[0.5], [2.0], [-2.0], [0.0]]), jnp.zeros((4, 1)))
    np.testing.assert_allclose(values, [0.125, 1.5, 1.5, 0])
    p, t = random_affect()
    expected = F.smooth_l1_loss(torch.tensor(p), torch.tensor(t), beta=0.3, reduction="none").sum(-1)
    np.testing.assert_allclose(affect.smooth_l1(jnp.asarray(p), jnp.asarray(t), beta=0.3), expected, rtol=1e-5)


def test_known_answers_of_the_concordance():
    target = jnp.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(affect.ccc_loss(target + 1, target), [1 - 0.5714286] * 3, rtol=1e-6)
    np.testing.assert_allclose(affect.pcc_loss(target + 1, target), [0] * 3, atol=1e-6)
    np.testing.assert_allclose(affect.ccc_loss(2 - target, target - 2), [2] * 3, rtol=1e-6)
    np.testing.assert_allclose(affect.ccc_loss(jnp.full((3, 1), 0.1), target), [1] * 3, rtol=1e-6)


def test_a_head_with_few_labels_is_compared_over_its_own_rows():
    prediction, target = random_affect(rows=6)
    target[3:, 1] = np.nan
    values = np.asarray(affect.ccc_loss(jnp.asarray(prediction), jnp.asarray(target)))
    p, t = torch.tensor(prediction), torch.tensor(target)
    first, second = 1 - torch_ccc(p[:, 0], t[:, 0]), 1 - torch_ccc(p[:3, 1], t[:3, 1])
    np.testing.assert_allclose(values[:3], (first + second).item() / 2, rtol=1e-5)
    np.testing.assert_allclose(values[3:], first.item() / 2, rtol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("case", ["constant", "constant near rounding", "both equal", "one row", "no row"])
def test_degenerate_batches_have_finite_values_and_gradients(name, case):
    rows = 1 if case == "one row" else 37
    prediction = np.zeros((rows, 2), np.float32) if case == "constant" else np.full((rows, 2), 0.1, np.float32)
    target = random_affect(rows)[1]
    if case == "both equal":
        target = prediction
    mask = jnp.zeros(rows, bool) if case == "no row" else None

    def mean(prediction):
        return affect.AFFECT_LOSSES[name](prediction, jnp.asarray(target), mask=mask).mean()

    value, slope = jax.value_and_grad(mean)(jnp.asarray(prediction))
    assert np.isfinite(value) and np.isfinite(slope).all() and np.abs(slope).max() < 10
    if name in ("ccc", "pcc") and case != "no row":
        np.testing.assert_allclose(value, 1, atol=1e-5)
    if case == "no row":
        assert value == 0


def test_emonet_mixture_is_the_drawn_mixture_of_its_parts():
    prediction, target = (jnp.asarray(x) for x in random_affect())
    squared, pearson, concordance = (
        np.asarray(affect.AFFECT_LOSSES[name](prediction, target), np.float64) for name in ("mse", "pcc", "ccc")
    )
    columns = np.stack([squared - concordance, pearson - concordance], 1)
    drawn = []
    for seed in range(200):
        values = np.asarray(affect.emonet_mixture(prediction, target, jax.random.key(seed)), np.float64)
        # The shares of the first two, recovered from the values of seven rows; the third is the rest.
        shares, *_ = np.linalg.lstsq(columns, values - concordance)
        drawn.append([*shares, 1 - shares.sum()])
        np.testing.assert_allclose(columns @ shares + concordance, values, rtol=1e-5)
    drawn = np.array(drawn)
    assert drawn.min() > -1e-3 and drawn.max() < 1 + 1e-3 and np.ptp(drawn, 0).min() > 0.5
    # E[a / (a + b + c)] = 1/3 by symmetry; the deviation of a mean of 200 is below 0.013.
    np.testing.assert_allclose(drawn.mean(0), 1 / 3, atol=0.05)


def test_emonet_mixture_repeats_with_its_key_and_not_otherwise():
    prediction, target = (jnp.asarray(x) for x in random_affect())
    first, again, other = (affect.emonet_mixture(prediction, target, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_array_equal(
        affect.emonet_mixture(prediction, target, jax.random.key(0), mask=jnp.arange(7) < 5)[5:], 0
    )


def test_affect_losses_refuse_what_does_not_fit():
    for name in REFERENCES:
        with pytest.raises(InputError, match="same shape"):
            affect.AFFECT_LOSSES[name](jnp.zeros((3, 2)), jnp.zeros((3, 1)))
        with pytest.raises(InputError, match="mask must be bool"):
            affect.AFFECT_LOSSES[name](jnp.zeros((3, 2)), jnp.zeros((3, 2)), mask=jnp.ones(3))
    with pytest.raises(InputError, match="beta must be above 0"):
        affect.smooth_l1(jnp.zeros((3, 2)), jnp.zeros((3, 2)), beta=0.0)


@pytest.mark.parametrize("loss", [affect.ccc_loss, affect.pcc_loss])
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1e30])
def test_correlations_of_predictions_that_are_not_finite_show_it(loss, wrong):
    target = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    prediction = target[::-1].copy()
    prediction[1, 0] = wrong
    assert np.isnan(loss(jnp.asarray(prediction), jnp.asarray(target))).all()
    mask = jnp.asarray([True, False, True, True])
    assert np.isfinite(loss(jnp.asarray(prediction), jnp.asarray(target), mask=mask)).all()
