"""The engine that computes a model's outputs by JAX."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, Shaped

from emokd.inference.engine import padded_sizes
from emokd.inference.forward import answers, create_forward
from emokd.models.network import TrainedModel


class JaxEngine:
    """The model in JAX, on its default device; one program is compiled for each padded size."""

    def __init__(self, model: TrainedModel, *, batch_size: int, precision: str = "float32", mirror: bool = False):
        """Puts the weights on the device; compiles nothing yet.

        Args:
          model: the network and its weights.
          batch_size: the largest number of rows in a call.
          precision: a name in `models.network.PRECISIONS`.
          mirror: whether valence and arousal are averaged with those of the mirrored picture.
        """
        forward = create_forward(model.spec, precision=precision, mirror=mirror)
        self._run = jax.jit(lambda params, stats, arrays: answers(model.spec, forward(params, stats, arrays)))
        self._weights = jax.device_put((model.params, model.stats))
        self._sizes = padded_sizes(batch_size)

    def __call__(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]]) -> dict[str, Float[np.ndarray, "B _"]]:
        """As `Engine`."""
        rows = len(next(iter(arrays.values())))
        padding = next(size for size in self._sizes if size >= rows) - rows
        padded = {name: np.concatenate([v, np.zeros((padding, *v.shape[1:]), v.dtype)]) for name, v in arrays.items()}
        return {name: values[:rows] for name, values in jax.device_get(self._run(*self._weights, padded)).items()}
