"""Position embeddings of a grid of patches, resampled to another grid as PyTorch's bicubic interpolation does."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emokd.models.convolution import widen


def resample(
    embeddings: Float[Array, "G G D"], rows: int, columns: int, *, antialias: bool
) -> Float[Array, "rows columns D"]:
    """Interpolates embeddings to another grid, in at least float32; the same grid is returned as it is.

    Args:
      embeddings: one for each patch of the square grid that they were trained for.
      rows: of the new grid.
      columns: of the new grid.
      antialias: see `bicubic_weights`.
    """
    side = embeddings.shape[0]
    if (rows, columns) == (side, side):
        return embeddings
    wide = widen(embeddings)
    down, across = (jnp.asarray(bicubic_weights(side, count, antialias), wide.dtype) for count in (rows, columns))
    halfway = jnp.einsum("rg,ghd->rhd", down, wide, precision="highest")
    return jnp.einsum("ch,rhd->rcd", across, halfway, precision="highest")


def bicubic_weights(inputs: int, outputs: int, antialias: bool) -> Float[np.ndarray, "outputs inputs"]:
    """The share of each input in each output of a cubic convolution (Keys 1981) along one axis.

    Points lie in the middle of their cells. As in `torch.nn.functional.interpolate(align_corners=False)` the kernel's
    parameter is -0.75 without `antialias`, and points beyond the border repeat it. With `antialias` it is -0.5, the
    kernel is as wide as an output's cell where that is larger, and what lies beyond the border is left out.
    """
    step = inputs / outputs
    centres = (np.arange(outputs) + 0.5) * step - 0.5
    if antialias:
        weights = _cubic((np.arange(inputs)[None] - centres[:, None]) / max(step, 1.0), -0.5)
        return weights / weights.sum(1, keepdims=True)
    weights = np.zeros((outputs, inputs))
    for offset in (-1, 0, 1, 2):
        taps = np.floor(centres).astype(int) + offset
        places = np.clip(taps, 0, inputs - 1)
        np.add.at(weights, (np.arange(outputs), places), _cubic(taps - centres, -0.75))
    return weights


def _cubic(distance: Float[np.ndarray, "*S"], a: float) -> Float[np.ndarray, "*S"]:
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
