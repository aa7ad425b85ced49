"""Rows scaled to a size at which squares neither overflow nor vanish, for losses that do not depend on the scale."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

NOTHING = 1e-35
"""A row whose largest magnitude is below this counts as zero: its direction would have gradients beyond float32."""

_HUGE, _SMALLER = 1e30, 1e-8


def without_scale(values: Float[Array, "B D"]) -> tuple[Float[Array, "B D"], Bool[Array, "B 1"]]:
    """Each row divided by its largest magnitude, which is held constant, and which rows count as zero.

    A function of the result that does not depend on the rows' scale has the right gradient with respect to `values`.
    Rows that count as zero are exactly 0, and no gradient flows to them. A NaN or an infinity makes its row NaN.
    """
    largest = lax.stop_gradient(jnp.abs(values).max(-1, keepdims=True))
    nothing, huge = largest < NOTHING, largest > _HUGE
    # XLA divides by multiplying with the reciprocal, which float32 lacks for its largest numbers.
    values = jnp.where(huge, values * _SMALLER, values)
    divisor = jnp.where(huge, largest * _SMALLER, jnp.where(nothing, 1.0, largest))
    return jnp.where(nothing, 0.0, values / divisor), nothing


def directions(values: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Each row with the length 1; a row that counts as zero is 0, without gradient."""
    scaled, nothing = without_scale(values)
    return scaled * lax.rsqrt(jnp.where(nothing, 1.0, (scaled**2).sum(-1, keepdims=True)))
