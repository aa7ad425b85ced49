"""Engines: what computes a model's outputs. The one here is JAX; another needs only to be callable in the same way."""

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Float, Shaped

from emokd.inference.forward import answers, create_forward
from emokd.models.network import TrainedModel

_GROWTH = 4


class Engine(Protocol):
    """Computes the outputs of a model. Several threads may call it at once."""

    def __call__(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]], /) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """The outputs by head, as `forward.answers`, for arrays by input, as `forward.create_forward` takes them."""


def padded_sizes(batch_size: int) -> tuple[int, ...]:
    """The sizes to which batches are filled up: 1, 4, 16, ... and the largest. [ours]

    So few programs are compiled, and a batch is filled up to less than four times its size.
    """
    sizes, size = [], 1
    while size < batch_size:
        sizes.append(size)
        size *= _GROWTH
    return (*sizes, batch_size)


class JaxEngine:
    """The model in JAX, on its default device; one program is compiled for each padded size."""

    def __init__(self, model: TrainedModel, *, batch_size: int, precision: str = "float32", mirror: bool = False):
        """Puts the weights on the device; compiles nothing yet.

        Args:
          model: the network and its weights.
          batch_size: the most rows of a call.
          precision: a name in `models.network.PRECISIONS`.
          mirror: whether valence and arousal are averaged with the mirrored picture's.
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
