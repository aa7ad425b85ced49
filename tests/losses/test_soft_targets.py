"""Soft-target losses against PyTorch: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.errors import InputError
from emokd.losses.soft_targets import kl_divergence


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence_agrees_with_pytorch(temperature):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(2, 6, 5)) * 3).astype(np.float32)
    weights = rng.normal(size=6).astype(np.float32)
    parameter = torch.tensor(student, requires_grad=True)
    log_s, log_t = (F.log_softmax(x / temperature, -1) for x in (parameter, torch.tensor(teacher)))
    expected = temperature**2 * F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1)
    (expected * torch.tensor(weights)).sum().backward()
    values, backward = jax.vjp(
        lambda s, t: kl_divergence(s, t, temperature=temperature), jnp.asarray(student), jnp.asarray(teacher)
    )
    to_student, to_teacher = backward(jnp.asarray(weights))
    np.testing.assert_allclose(values, expected.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_student, parameter.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(to_teacher, 0)


def test_known_answers():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    other = jnp.log(jnp.array([[0.25, 0.5, 0.25]]))
    np.testing.assert_allclose(kl_divergence(other, logits, temperature=1.0), [0.25 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(kl_divergence(logits, logits + 3, temperature=4.0), [0], atol=1e-6)


def test_kl_tends_to_the_squared_error_of_centred_logits_at_high_temperature():
    # Hinton et al., 2015, section 2.1: in the limit, per example, |z_s - z_t|^2 / (2 C) for centred logits.
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 5))
    student, teacher = (x - x.mean(-1, keepdims=True) for x in (student, teacher))
    values = kl_divergence(jnp.float32(student), jnp.float32(teacher), temperature=30.0)
    np.testing.assert_allclose(values, ((student - teacher) ** 2).sum(-1) / 10, rtol=0.06)


def test_a_class_that_the_teacher_does_not_know_counts_nothing():
    student = jnp.array([[0.3, -0.2, 0.1]])
    teacher = jnp.array([[1.0, 0.0, -jnp.inf]])
    value, slope = jax.value_and_grad(lambda s: kl_divergence(s, teacher, temperature=1.0).sum())(student)
    p = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    log_s = np.array([0.3, -0.2]) - np.log(np.exp([0.3, -0.2, 0.1]).sum())
    np.testing.assert_allclose(value, (p * (np.log(p) - log_s)).sum(), rtol=1e-5)
    assert np.isfinite(slope).all()


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="temperature must be above 0"):
        kl_divergence(jnp.zeros((2, 3)), jnp.zeros((2, 3)), temperature=0.0)
    with pytest.raises(InputError, match=r"student_logits \[2, 3\], teacher_logits \[2, 4\]"):
        kl_divergence(jnp.zeros((2, 3)), jnp.zeros((2, 4)), temperature=1.0)
