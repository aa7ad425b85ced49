"""The maximum over windows against PyTorch's, with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.models.pooling import max_pool

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 7)])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_agrees_with_pytorch(height, width, size, stride, padding):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    theirs = torch.tensor(maps).permute(0, 3, 1, 2).requires_grad_()
    wanted = F.max_pool2d(theirs, size, stride, padding)
    slope = rng.normal(size=tuple(wanted.shape)).astype(np.float32)
    wanted.backward(torch.tensor(slope))
    found, backward = jax.vjp(lambda x: max_pool(x, size, stride, ((padding, padding),) * 2), jnp.asarray(maps))
    np.testing.assert_array_equal(found, wanted.detach().permute(0, 2, 3, 1))
    (gradient,) = backward(jnp.asarray(slope.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(gradient, theirs.grad.permute(0, 2, 3, 1), rtol=1e-6, atol=1e-6)


def test_equal_values_share_the_gradient_and_nan_is_kept():
    ones = jnp.ones((1, 2, 2, 1))
    gradient = jax.grad(lambda x: max_pool(x, 2, 2).sum())(ones)
    np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))
    assert np.isnan(max_pool(ones.at[0, 1, 0, 0].set(jnp.nan), 2, 2)).all()
