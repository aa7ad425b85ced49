"""Maximum mean discrepancy: how far two samples are from being drawn from one distribution."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from emokd.losses.shapes import as_floats, check_rows, check_same_shape

_KERNELS = 5
_FACTOR = 2.0
_ROUNDING = 1e-12  # of the mean square: a smaller spread is float32's rounding of one point


def gaussian_mmd(
    generated: Float[Array, "B D"], target: Float[Array, "B D"], *, mask: Bool[Array, " B"] | None = None
) -> Float[Array, " B"]:
    """MMD^2 = mean k(g, g') + mean k(t, t') - 2 mean k(g, t), repeated on every row that counts.

    k(u, v) is the sum of five kernels exp(-|u - v|^2 / h), each h twice the one before (mtpkdot.md). The middle h is
    the mean of |u - v|^2 over all pairs of different rows of both samples together, without gradient. The estimate
    is the biased one: the means include each row with itself, so it is never below 0 but for rounding, and 0 for
    equal samples. [ours]

    A loss of the whole batch: the mean of these values over the rows that count is the loss, and so has its
    gradient, which is finite for equal rows too. The order of the rows does not matter: it is a distance between
    distributions, not between pairs.

    Args:
      generated: hallucinated features.
      target: true features; no gradient flows to them.
      mask: rows that count, the same for both.

    Raises:
      InputError: the shapes differ.
    """
    check_same_shape(2, generated=generated, target=target)
    mask = check_rows(mask, generated.shape[0])
    generated, target = as_floats(generated, lax.stop_gradient(target))
    both = jnp.concatenate([generated, target])
    counted = jnp.concatenate([mask, mask])[:, None]
    both = jnp.where(counted, both, 0.0)
    rows = jnp.maximum(mask.sum(), 1).astype(both.dtype)
    # Moving all points changes no distance, and squares of small coordinates round less.
    centre = lax.stop_gradient(both.sum(0, keepdims=True)) / (2 * rows)
    size, both = (both**2).sum(), jnp.where(counted, both - centre, 0.0)
    squares = (both**2).sum(-1)
    products = jnp.matmul(both, both.T, precision=lax.Precision.HIGHEST)
    distances = squares[:, None] + squares[None, :] - 2 * products
    # Around their mean, the squares of all pairs' distances sum to 2 n sum |u|^2, over n (n - 1) pairs.
    middle = lax.stop_gradient(2 * squares.sum() / (2 * rows - 1))
    middle = jnp.where(squares.sum() <= _ROUNDING * size, 1.0, middle)
    widths = [middle * _FACTOR ** (i - _KERNELS // 2) for i in range(_KERNELS)]
    kernels = sum(jnp.exp(-distances / width) for width in widths)
    signs = mask.astype(both.dtype) / rows
    signs = jnp.concatenate([signs, -signs])
    discrepancy = (signs[:, None] * signs[None, :] * kernels).sum()
    return jnp.where(mask, discrepancy, 0.0)
