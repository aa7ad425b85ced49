"""The teacher-bounded loss: the known answers of its description, NumPy, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses.bounded import teacher_bound

torch = Lazily("torch")


def one(value):
    return jnp.array([[value]], jnp.float32)


@pytest.mark.parametrize(
    ("student", "teacher", "margin", "expected"),
    [
        (0.4, 0.5, 0.0, 0.0),
        (0.6, 0.5, 0.0, 0.36),
        (0.4, 0.5, 0.1, 0.16),
        (0.38, 0.5, 0.1, 0.0),
        (0.2, 0.0, 0.0, 0.04),
        (-0.5, 0.5, 0.0, 0.0),
        (0.5, 0.5, 0.0, 0.0),
    ],
)
def test_known_answers(student, teacher, margin, expected):
    value = teacher_bound(one(student), one(teacher), one(0.0), margin=margin)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


def random_case():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 50, 2)).astype(np.float32)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_value_and_gradient_agree_with_pytorch(joint, margin):
    student, teacher, target = random_case()
    parameter, t, y = torch.tensor(student, requires_grad=True), torch.tensor(teacher), torch.tensor(target)
    own, theirs = (parameter - y) ** 2, (t - y) ** 2
    if joint:
        own, theirs = own.sum(-1, keepdim=True), theirs.sum(-1, keepdim=True)
    bound = torch.where((own + margin > theirs).detach(), own, 0.0).sum(-1)
    assert 0 < (bound == 0).sum() < len(bound)
    expected = 0.7 * bound
    expected.sum().backward()
    values, backward = jax.vjp(
        lambda s, t: 0.7 * teacher_bound(s, t, jnp.asarray(target), margin=margin, joint=joint),
        jnp.asarray(student),
        jnp.asarray(teacher),
    )
    to_student, to_teacher = backward(jnp.ones(50))
    np.testing.assert_allclose(values, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(to_student, parameter.grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(to_teacher, 0)


def test_a_perfect_teacher_leaves_the_squared_error():
    student, _, target = (jnp.asarray(x) for x in random_case())
    expected = ((student - target) ** 2).sum(-1)
    np.testing.assert_allclose(teacher_bound(student, target, target), expected, rtol=1e-6)


def test_joint_and_per_head_differ_where_the_student_wins_on_one_head():
    student, teacher, target = jnp.array([[0.1, 0.6]]), jnp.array([[0.5, 0.5]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(teacher_bound(student, teacher, target), [0.36], rtol=1e-6)
    np.testing.assert_allclose(teacher_bound(student, teacher, target, joint=True), [0.0])


def test_missing_targets_and_padding_count_nothing():
    student, teacher, target = random_case()
    target[0, 1], target[1], teacher[2], student[3] = np.nan, np.nan, np.nan, np.nan
    mask = jnp.arange(50) != 3

    def total(student):
        values = teacher_bound(student, jnp.asarray(teacher), jnp.asarray(target), margin=100.0, mask=mask)
        return values.sum(), values

    (_, values), slope = jax.value_and_grad(total, has_aux=True)(jnp.asarray(student))
    assert np.isfinite(values).all() and np.isfinite(slope).all()
    np.testing.assert_array_equal(values[np.array([1, 3])], 0)
    np.testing.assert_array_equal(slope[np.array([1, 3])], 0)
    assert slope[0, 1] == 0 and slope[0, 0] != 0
    np.testing.assert_allclose(values[0], (student[0, 0] - target[0, 0]) ** 2, rtol=1e-6)
    assert values[2] == 0  # the teacher says nothing, so it sets no bound


def test_wrong_input_is_refused():
    zeros = jnp.zeros((2, 2))
    with pytest.raises(InputError, match="margin must be at least 0"):
        teacher_bound(zeros, zeros, zeros, margin=-0.1)
    with pytest.raises(InputError, match="same shape"):
        teacher_bound(zeros, jnp.zeros((2, 1)), zeros)
    with pytest.raises(InputError, match="mask must be bool"):
        teacher_bound(zeros, zeros, zeros, mask=jnp.ones(3, bool))
