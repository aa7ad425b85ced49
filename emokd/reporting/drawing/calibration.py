"""A reliability diagram: how often a network is right, by how sure it is."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from emokd.reporting.drawing.axes import Axes
from emokd.reporting.drawing.svg import Drawing, element

BINS = 15
"""As in the expected calibration error of the scores."""


@dataclasses.dataclass(frozen=True, eq=False)
class Bins:
    """Examples by their confidence, in `BINS` equal parts of [0, 1], each with its upper end.

    Attributes:
      count: examples.
      confidence: their mean confidence; NaN in an empty bin.
      accuracy: the share of them that is right; NaN in an empty bin.
    """

    count: Int[np.ndarray, " B"]
    confidence: Float[np.ndarray, " B"]
    accuracy: Float[np.ndarray, " B"]

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al., 2017): the mean over examples of their bin's gap."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((gaps * self.count[filled]).sum() / self.count.sum())


def binned(confidence: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = BINS) -> Bins:
    """Sorts examples into bins.

    Args:
      confidence: the largest probability of each example.
      right: whether the class of that probability is the label.
      bins: how many.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / count for values in (confidence, right)]
    return Bins(count, *means)


def draw_reliability(found: Bins, who: str) -> Drawing:
    """Accuracy over confidence as bars beside the diagonal, and below them the share of examples in each bin."""
    said = "; ".join(
        f"confidence {c:.2f}: right {a:.2f} of {n}"
        for n, c, a in zip(found.count, found.confidence, found.accuracy, strict=True)
        if n
    )
    drawing = Drawing(360, 366, f"Reliability of {who}, expected calibration error {found.error:.4f}. {said}.")
    drawing.text(8, 14, who, "title")
    axes = Axes(drawing, (46, 38, 300, 220), (0, 1), (0, 1))
    fifths = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.grid([], fifths)
    axes.label(y="share that is right")
    shares = Axes(drawing, (46, 272, 300, 50), (0, 1), (0, max(float(found.count.max() / found.count.sum()), 1e-9)))
    width = 300 / len(found.count)
    for place, (count, confidence, accuracy) in enumerate(
        zip(found.count.tolist(), found.confidence.tolist(), found.accuracy.tolist(), strict=True)
    ):
        if not count:
            continue
        left = 46 + place * width
        told = element("title", f"{count} examples, confidence {confidence:.3f}, right {accuracy:.3f}")
        top, share = axes.y(accuracy), shares.y(count / found.count.sum())
        drawing.add("rect", told, x=left + 1, y=top, width=width - 2, height=axes.y(0) - top, class_="bar s0")
        low, high = sorted((axes.y(confidence), top))
        drawing.add("rect", told, x=left + 1, y=low, width=width - 2, height=high - low, class_="gap")
        drawing.add("rect", told, x=left + 1, y=share, width=width - 2, height=shares.y(0) - share, class_="bar quiet")
    drawing.add("line", x1=axes.x(0), y1=axes.y(0), x2=axes.x(1), y2=axes.y(1), class_="diagonal")
    shares.grid(fifths, [])
    drawing.text(46, 269, f"share of the {int(found.count.sum())} examples", "tick")
    shares.label(x="confidence")
    return drawing
