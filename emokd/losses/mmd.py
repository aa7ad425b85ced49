"""Maximum mean discrepancy (MMD): a distance between the distributions that two samples are drawn from."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from emokd.losses.directions import without_scale
from emokd.losses.group import ALONE, Group
from emokd.losses.shapes import as_floats, check_rows, check_same_shape

_KERNELS = 5
_FACTOR = 2.0
_ROUNDING = 1e-12  # share of the sum of squares; a smaller spread is only float32's rounding error of equal points


def gaussian_mmd(
    generated: Float[Array, "B D"],
    target: Float[Array, "B D"],
    *,
    mask: Bool[Array, " B"] | None = None,
    group: Group = ALONE,
) -> Float[Array, " R"]:
    """MMD^2 = mean k(g, g') + mean k(t, t') - 2 mean k(g, t), repeated on every row that counts.

    k(u, v) is the sum of five kernels exp(-|u - v|^2 / h), each h twice the one before (mtpkdot.md). The middle h is
    the mean of |u - v|^2 over all pairs of different rows of both samples together, without gradient. The estimate
    is the biased one, whose means include each row paired with itself. It is at least 0, rounding aside, and 0 for
    equal samples. [ours]

    This is a loss of the whole batch: its value, and its gradient, are the mean of these values over the rows that
    count. The gradient is finite for equal rows too, and 0 where no entry of either sample reaches 1e-35. The order of
    the rows does not matter, because distributions are compared, not pairs.

    Args:
      generated: g, the hallucinated features.
      target: t, the true features; no gradient flows to them.
      mask: rows that count, the same for both samples; None for all.
      group: which R rows are this device's, where the batch lies on several; the samples and the mask are whole.

    Raises:
      InputError: the shapes differ.

    Examples:
      The same sample in another order is the same distribution.

      >>> sample = jnp.array([[0.0, 1.0], [2.0, 3.0]])
      >>> [round(abs(float(value)), 4) for value in gaussian_mmd(sample, sample[::-1])]
      [0.0, 0.0]
    """
    check_same_shape(2, generated=generated, target=target)
    mask = check_rows(mask, generated.shape[0])
    generated, target = as_floats(generated, lax.stop_gradient(target))
    both = jnp.concatenate([generated, target])
    counted = jnp.concatenate([mask, mask])[:, None]
    both = jnp.where(counted, both, 0.0)
    # The widths follow the scale of both samples, so dividing by it changes nothing, and no square overflows.
    both = without_scale(both.reshape(1, -1))[0].reshape(both.shape)
    rows = jnp.maximum(mask.sum(), 1).astype(both.dtype)
    # Subtracting the mean changes no distance, and the squares of smaller coordinates lose less to rounding.
    centre = lax.stop_gradient(both.sum(0, keepdims=True)) / (2 * rows)
    size, both = (both**2).sum(), jnp.where(counted, both - centre, 0.0)
    squares = (both**2).sum(-1)
    mine = functools.partial(_own_of_both, group)
    products = jnp.matmul(mine(both), both.T, precision=lax.Precision.HIGHEST)
    distances = mine(squares)[:, None] + squares[None, :] - 2 * products
    # For n centred points the squared distances of all n (n - 1) ordered pairs sum to 2 n sum |u|^2; here n = 2 rows.
    middle = lax.stop_gradient(2 * squares.sum() / (2 * rows - 1))
    middle = jnp.where(squares.sum() <= _ROUNDING * size, 1.0, middle)
    widths = [middle * _FACTOR ** (i - _KERNELS // 2) for i in range(_KERNELS)]
    kernels = sum(jnp.exp(-distances / width) for width in widths)
    signs = mask.astype(both.dtype) / rows
    signs = jnp.concatenate([signs, -signs])
    discrepancy = group.total((mine(signs)[:, None] * signs[None, :] * kernels).sum())
    return jnp.where(group.own(mask), discrepancy, 0.0)


def _own_of_both(group: Group, values: Array) -> Array:
    """This device's rows of both samples, which stand one after the other."""
    rows = values.shape[0] // 2
    return jnp.concatenate([group.own(values[:rows]), group.own(values[rows:])])
