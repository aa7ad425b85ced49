"""MMD, compared with sums over pairs in NumPy and with PyTorch's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.losses import mmd

torch = Lazily("torch")


def samples(rows=7, apart=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 3)) + apart).astype(np.float32), rng.normal(size=(rows, 3)).astype(np.float32)


def in_numpy(generated, target):
    """Loops over pairs, in float64."""
    both = np.concatenate([generated, target]).astype(np.float64)
    distances = [((u - v) ** 2).sum() for i, u in enumerate(both) for j, v in enumerate(both) if i != j]
    widths = np.mean(distances) * np.array([1 / 4, 1 / 2, 1, 2, 4])

    def mean_kernel(sample, other):
        return np.mean([np.exp(-((u - v) ** 2).sum() / widths).sum() for u in sample for v in other])

    generated, target = both[: len(generated)], both[len(generated) :]
    return mean_kernel(generated, generated) + mean_kernel(target, target) - 2 * mean_kernel(generated, target)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_agrees_with_numpy(rows, shift):
    generated, target = samples(rows)
    values = mmd.gaussian_mmd(jnp.asarray(generated + np.float32(shift)), jnp.asarray(target + np.float32(shift)))
    np.testing.assert_allclose(values, np.full(rows, in_numpy(generated, target)), rtol=1e-4, atol=1e-6)


def test_gradient_agrees_with_pytorch():
    generated, target = samples()
    g, t = torch.tensor(generated, requires_grad=True), torch.tensor(target)
    both = torch.cat([g, t])
    distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    middle = distances.detach().sum() / (14 * 13)
    kernels = sum(torch.exp(-distances / (middle * 2**i)) for i in (-2, -1, 0, 1, 2))
    (kernels[:7, :7].mean() + kernels[7:, 7:].mean() - 2 * kernels[:7, 7:].mean()).backward()
    slopes = jax.grad(lambda g, t: mmd.gaussian_mmd(g, t).mean(), argnums=(0, 1))(
        jnp.asarray(generated), jnp.asarray(target)
    )
    np.testing.assert_allclose(slopes[0], g.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slopes[1], 0)


def test_rows_that_do_not_count_do_nothing():
    generated, target = samples()
    mask = np.array([True, False, True, True, True, False, True])
    generated[~mask], target[~mask] = np.nan, 1e6

    def loss(generated):
        values = mmd.gaussian_mmd(generated, jnp.asarray(target), mask=jnp.asarray(mask))
        return values.sum(), values

    (_, values), slope = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(generated))
    np.testing.assert_allclose(values, np.where(mask, in_numpy(generated[mask], target[mask]), 0), rtol=1e-5)
    np.testing.assert_array_equal(slope[~mask], 0)
    assert np.abs(slope[mask]).min(axis=0).max() > 0


@pytest.mark.parametrize("rows", ["different", "one and the same", "zero"])
def test_equal_samples_are_at_no_distance_and_have_a_finite_gradient(rows):
    sample = samples()[1]
    sample = {"different": sample, "one and the same": np.repeat(sample[:1], 7, axis=0), "zero": 0 * sample}[rows]
    value, slope = jax.value_and_grad(lambda g: mmd.gaussian_mmd(g, jnp.asarray(sample)).mean())(jnp.asarray(sample))
    assert abs(value) < 1e-6
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_no_row_that_counts():
    generated, target = (jnp.asarray(sample) for sample in samples())
    value, slope = jax.value_and_grad(lambda g: mmd.gaussian_mmd(g, target, mask=jnp.zeros(7, bool)).sum())(generated)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_a_distance_between_distributions_not_between_pairs():
    generated, target = (jnp.asarray(sample) for sample in samples())
    values = mmd.gaussian_mmd(generated, target)
    np.testing.assert_allclose(mmd.gaussian_mmd(generated[::-1], target), values, rtol=1e-5)
    np.testing.assert_allclose(mmd.gaussian_mmd(3 * generated, 3 * target), values, rtol=1e-5)
    further = mmd.gaussian_mmd(generated + 1, target)
    assert further[0] > 2 * values[0]


def test_a_nan_stays_visible():
    generated, target = samples()
    generated[3, 1] = np.nan
    assert np.isnan(mmd.gaussian_mmd(jnp.asarray(generated), jnp.asarray(target))).all()


def test_half_precision_is_only_the_inputs():
    rounded = [jnp.asarray(sample, jnp.bfloat16) for sample in samples()]
    values = mmd.gaussian_mmd(*rounded)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, mmd.gaussian_mmd(*(sample.astype(jnp.float32) for sample in rounded)))


def test_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="same shape"):
        mmd.gaussian_mmd(jnp.zeros((4, 3)), jnp.zeros((5, 3)))
    with pytest.raises(InputError, match="mask must be bool"):
        mmd.gaussian_mmd(jnp.zeros((4, 3)), jnp.zeros((4, 3)), mask=jnp.ones(4))
