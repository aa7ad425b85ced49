"""Checks of a loss's arguments: shapes, masks, ranges and dtypes."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError


def check_same_shape(rank: int, **arrays: Array) -> None:
    """Raises InputError unless all arrays have this rank and one common shape."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != rank for shape in shapes.values()):
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise InputError(f"These must all have the same shape with {rank} axes, not {found}.")


def check_rows(mask: Array | None, rows: int) -> Bool[Array, " B"]:
    """The mask, or one that is True everywhere where it is None; raises InputError unless it is bool [rows]."""
    if mask is None:
        return jnp.ones(rows, bool)
    if mask.shape != (rows,) or mask.dtype != jnp.bool_:
        raise InputError(f"The mask must be bool [{rows}], not {mask.dtype} {list(mask.shape)}.")
    return mask


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, above: bool = False, below: bool = False
) -> None:
    """Raises InputError unless low <= value <= high; `above` excludes low itself, `below` excludes high itself."""
    if not (low < value if above else low <= value) or not (value < high if below else value <= high):
        words = f"{'above' if above else 'at least'} {low}"
        if high != float("inf"):
            words += f" and {'below' if below else 'at most'} {high}"
        raise InputError(f"{name} must be {words}, not {value}.")


def as_floats(*arrays: Array) -> Sequence[Float[Array, "..."]]:
    """The arrays cast to float32, or all of them to float64 where one of them is float64."""
    dtype = jnp.float64 if any(array.dtype == jnp.float64 for array in arrays) else jnp.float32
    return [array.astype(dtype) for array in arrays]
