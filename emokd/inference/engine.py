"""What computes a model's outputs: any callable of this signature can be an engine."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Float, Shaped

_GROWTH = 4


class Engine(Protocol):
    """Computes the outputs of a model. Several threads may call it at once."""

    def __call__(self, arrays: Mapping[str, Shaped[np.ndarray, "B ..."]], /) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """Computes the outputs by head from arrays by input.

        Args:
          arrays: pictures uint8 [B, H, W, 3], videos uint8 [B, T, H, W, 3], others floating [B, ...] relative to the
            training's centre and unit, by `Input.reads`.

        Returns:
          Probabilities of each classifying head, and `valence_arousal` in [-1, 1].
        """


def padded_sizes(batch_size: int) -> tuple[int, ...]:
    """The sizes that batches are padded to: 1, 4, 16, ... and `batch_size`. [ours]

    So only a few programs are compiled, and padding makes a batch less than four times as large.
    """
    sizes, size = [], 1
    while size < batch_size:
        sizes.append(size)
        size *= _GROWTH
    return (*sizes, batch_size)
