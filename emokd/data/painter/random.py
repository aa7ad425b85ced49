"""Random numbers of the painter: independent streams that are pure functions of (seed, index, purpose).

Only integers, +, -, * and / are used, so the numbers are the same on every machine and in every release of
NumPy (which promises the raw output of Philox, but not the output of `Generator`'s distributions).
"""

import enum
import math

import numpy as np

_BLOCK = 64


class Purpose(enum.IntEnum):
    """What a stream is for. The numbers are part of the data set: new purposes get new numbers."""

    STATE = 0
    FACE = 1
    SCENE = 2
    SENSOR = 3
    PHYSIOLOGY = 4
    SOUND = 5
    CAST = 6
    VOICE = 7


class Stream:
    """A sequence of random numbers fixed by (seed, index, purpose), each of which selects an independent sequence."""

    def __init__(self, seed: int, index: int, purpose: Purpose):
        key = np.array([seed, index], np.uint64)
        counter = np.array([0, 0, 0, purpose], np.uint64)
        self._generator = np.random.Philox(key=key, counter=counter)
        self._waiting: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._waiting:
            self._waiting = self.uniforms(_BLOCK)[::-1].tolist()
        return low + (high - low) * self._waiting.pop()

    def normal(self, deviation: float = 1.0) -> float:
        """A nearly normal number: the sum of four uniform ones, within 3.5 standard deviations."""
        total = self.uniform() + self.uniform() + self.uniform() + self.uniform()
        return deviation * (total - 2.0) * 1.7320508075688772

    def choice(self, weights: list[float]) -> int:
        """A position in `weights`, with probability proportional to its weight."""
        total = 0.0
        for weight in weights:  # not sum(): Python 3.12 changed how it rounds
            total += weight
        threshold = self.uniform() * total
        for position, weight in enumerate(weights[:-1]):
            threshold -= weight
            if threshold < 0:
                return position
        return len(weights) - 1

    def uniforms(self, *shape: int) -> np.ndarray:
        """float64 of the given shape in [0, 1), drawn after whatever block the scalar draws have reached."""
        raw = self._generator.random_raw(math.prod(shape))
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def normals(self, *shape: int) -> np.ndarray:
        """float32 of the given shape, nearly normal with deviation 1: sums of four 16-bit uniforms."""
        count = math.prod(shape)
        parts = self._generator.random_raw(count).astype("<u8").view("<u2").reshape(count, 4).astype(np.int32)
        total = parts[:, 0] + parts[:, 1] + parts[:, 2] + parts[:, 3]
        return ((total - 131070) * (1.7320508075688772 / 65536)).astype(np.float32).reshape(shape)
