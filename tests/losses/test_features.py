"""Feature distances against PyTorch: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses import features

torch = Lazily("torch")

REFERENCES = {
    "mean_squared": lambda s, t: torch.nn.functional.mse_loss(s, t, reduction="none").mean(-1),
    "cosine": lambda s, t: 1 - torch.nn.functional.cosine_similarity(s, t),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_pytorch(name):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 5)).astype(np.float32)
    weights = rng.normal(size=6).astype(np.float32)
    loss = getattr(features, name)
    parameter = torch.tensor(student, requires_grad=True)
    expected = REFERENCES[name](parameter, torch.tensor(teacher))
    (expected * torch.tensor(weights)).sum().backward()
    values, backward = jax.vjp(loss, jnp.asarray(student), jnp.asarray(teacher))
    to_student, to_teacher = backward(jnp.asarray(weights))
    np.testing.assert_allclose(values, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_student, parameter.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(to_teacher, 0)


def test_cosine_of_zero_vectors_is_one_with_finite_gradients():
    zero, other = jnp.zeros((1, 3)), jnp.ones((1, 3))
    for student, teacher in ((zero, other), (other, zero), (zero, zero)):
        value, slope = jax.value_and_grad(lambda s, t: features.cosine(s, t).sum())(student, teacher)
        assert value == 1 and np.isfinite(slope).all()


def test_cosine_ignores_length_and_knows_its_ends():
    student = jnp.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    teacher = jnp.array([[10.0, 20.0], [-3.0, -6.0], [-2.0, 1.0]])
    np.testing.assert_allclose(features.cosine(student, teacher), [0, 2, 1], atol=1e-6)


@pytest.mark.parametrize("name", REFERENCES)
def test_half_precision_is_computed_in_float32(name):
    rng = np.random.default_rng(0)
    student, teacher = (jnp.asarray(x, jnp.bfloat16) for x in rng.normal(size=(2, 4, 64)))
    value = getattr(features, name)(student, teacher)
    assert value.dtype == jnp.float32
    expected = REFERENCES[name](*(torch.tensor(np.asarray(x, np.float32)) for x in (student, teacher)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_shapes_are_checked(name):
    for student, teacher in (((4, 3), (4, 2)), ((4, 3), (1, 3)), ((4,), (4,))):
        with pytest.raises(InputError, match="same shape with 2 axes"):
            getattr(features, name)(jnp.zeros(student), jnp.zeros(teacher))


def test_the_cosine_of_huge_vectors_is_that_of_their_directions():
    rng = np.random.default_rng(5)
    small, other = rng.normal(size=(2, 4, 6)).astype(np.float32)
    huge = jnp.asarray(small) * 1e30
    np.testing.assert_allclose(features.cosine(huge, jnp.asarray(small)), 0.0, atol=1e-6)
    expected = features.cosine(jnp.asarray(small), jnp.asarray(other))
    np.testing.assert_allclose(features.cosine(huge, jnp.asarray(other) * 1e25), expected, rtol=1e-5)
    gradient = jax.grad(lambda s: features.cosine(s, jnp.asarray(other)).sum())
    np.testing.assert_allclose(gradient(huge) * 1e30, gradient(jnp.asarray(small)), rtol=1e-3, atol=1e-6)
