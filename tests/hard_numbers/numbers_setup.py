"""Arrays that are hard on arithmetic, and comparisons that allow for what float32 can hold."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
HARD = (
    *(0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-40, SMALLEST, -1e-38, 1e-30, 1e-19, -1e-8),
    *(1e8, 1e15, -1e19, 1e20, -1e30, LARGEST, -LARGEST),
)
"""Values at which float32 loses something: denormal ones, those whose squares vanish or overflow, and the ends."""
USUAL = st.floats(-4, 4, width=32)
DTYPES = (np.float32, ml_dtypes.bfloat16)


@st.composite
def matrices(draw, shape: tuple[int, ...], hard=HARD):
    """An array of one of `DTYPES` with usual and hard values, in several kinds of likeness between its rows."""
    elements = draw(st.sampled_from((USUAL, st.sampled_from(hard), st.one_of(USUAL, st.sampled_from(hard)))))
    values = draw(arrays.arrays(np.float32, shape, elements=elements))
    match draw(st.sampled_from(("as drawn", "one row", "a row of zeros", "all scaled", "bfloat16"))):
        case "one row":
            values = np.broadcast_to(values[:1], shape).copy()
        case "a row of zeros":
            values[0] = 0
        case "all scaled":
            with np.errstate(over="ignore"):
                values = np.clip(values, -4, 4) * np.float32(draw(st.sampled_from(hard)))
        case "bfloat16":
            with np.errstate(over="ignore"):
                values = values.astype(ml_dtypes.bfloat16)
            values = np.where(np.isfinite(values.astype(np.float32)), values, 0).astype(ml_dtypes.bfloat16)
    return np.where(np.isfinite(values.astype(np.float32)), values, np.asarray(1, values.dtype))


def masks(rows: int):
    """Masks of rows: empty, full and between."""
    return st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array)


def exact(values: np.ndarray) -> np.ndarray:
    """In float64, with denormal numbers as 0, which is what XLA makes of them."""
    values = np.asarray(values).astype(np.float64)
    return np.where(np.abs(values) < SMALLEST, 0.0, values)


def assert_close(found, expected, *, rtol=1e-4, atol=1e-5, scale=0.0) -> None:
    """Equal up to rounding; what float32 cannot hold must not be finite, so that the check of a step's loss sees it.

    Args:
      scale: magnitude of the terms that were added up, to which rounding errors are relative.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    beyond = ~(np.abs(expected) < 0.5 * LARGEST)
    near_the_end = beyond & (np.abs(expected) < 2 * LARGEST)
    assert not np.isfinite(found[beyond & ~near_the_end]).any(), (found, expected)
    within = ~beyond
    allowed = atol + rtol * np.maximum(np.abs(expected), np.broadcast_to(scale, expected.shape))
    wrong = within & ~(np.abs(found - np.where(within, expected, 0)) <= allowed)
    assert not wrong.any(), f"found {found[wrong]}, expected {expected[wrong]}"
