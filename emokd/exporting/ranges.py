"""The ranges that a graph's tensors take on calibration examples, and the steps of their 8-bit forms."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from jaxtyping import Float, Shaped

from emokd.exporting.graph import Graph
from emokd.exporting.session import Session
from emokd.exporting.writing import to_model
from emokd.models.rounding import ACTIVATION_LEVELS, SMALLEST_SCALE

_BINS = 2048
_SHARES = np.linspace(0.2, 1, 81)  # of the range, tried as bounds


@dataclasses.dataclass(frozen=True)
class Step:
    """The affine map of a tensor to uint8: value = scale * (integer - zero).

    Attributes:
      scale: above 0.
      zero: the integer of the value 0, from 0 to 255.
    """

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> "Step":
        """The step of a range, which is widened to contain 0: padding has to be exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / ACTIVATION_LEVELS, SMALLEST_SCALE)
        return cls(float(np.float32(scale)), int(np.clip(np.rint(-low / scale), 0, ACTIVATION_LEVELS)))

    def rounded(self, values: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
        """The values after the way to uint8 and back."""
        integers = np.clip(np.rint(values / self.scale) + self.zero, 0, ACTIVATION_LEVELS)
        return self.scale * (integers - self.zero)


@dataclasses.dataclass
class Seen:
    """What a tensor's values were.

    Attributes:
      low: the smallest.
      high: the largest.
      counts: how many values fell into each of equal bins from low to high.
      means: of each channel.
    """

    low: float
    high: float
    counts: Float[np.ndarray, " bins"]
    means: Float[np.ndarray, " C"]

    def whole(self) -> Step:
        """The step of the whole range."""
        return Step.of(self.low, self.high)

    def closest(self) -> Step:
        """The step of the smallest mean squared error: of the range times one of several factors up to 1. [ours]"""
        centres = self.low + (np.arange(_BINS) + 0.5) * (self.high - self.low) / _BINS
        steps = [Step.of(share * self.low, share * self.high) for share in _SHARES]
        return min(steps, key=lambda step: float(self.counts @ (centres - step.rounded(centres)) ** 2))


def observe(
    graph: Graph, tensors: Mapping[str, int], batches: Collection[Mapping[str, Shaped[np.ndarray, "B ..."]]]
) -> dict[str, Seen]:
    """Runs the graph in ONNX Runtime and records tensors.

    Args:
      graph: in float32.
      tensors: the axis of the channels, by name.
      batches: the graph's inputs by name.
    """
    probes = {f"seen/{name}": name for name in tensors}
    outputs = graph.outputs
    graph.outputs = {**outputs, **probes}
    try:
        session = Session(to_model(graph, "0").SerializeToString())
    finally:
        graph.outputs = outputs

    def runs() -> Iterable[dict[str, np.ndarray]]:
        for batch in batches:
            found = session.read(batch, list(probes))
            yield {name: found[probe] for probe, name in probes.items()}

    seen: dict[str, Seen] = {}
    for values in runs():
        for name, array in values.items():
            others = tuple(axis for axis in range(array.ndim) if axis != tensors[name] % array.ndim)
            means, old = array.mean(others, dtype=np.float64), seen.get(name)
            bounds = float(array.min()), float(array.max())
            if old is None:
                seen[name] = Seen(*bounds, np.zeros(_BINS), means)
            else:
                old.low, old.high = min(old.low, bounds[0]), max(old.high, bounds[1])
                old.means = old.means + means
    for record in seen.values():
        record.means = record.means / len(batches)
    for values in runs():
        for name, array in values.items():
            record = seen[name]
            record.counts += np.histogram(array, _BINS, (record.low, max(record.high, record.low + 1e-30)))[0]
    return seen
