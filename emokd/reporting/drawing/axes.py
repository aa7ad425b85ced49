"""A rectangle of a drawing in which values have places: scales, ticks and grid lines."""

import math
from collections.abc import Sequence

from emokd.reporting.drawing.svg import Drawing

Range = tuple[float, float]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from `low` to `high`, at most `most` of them: steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [index * step for index in range(first, last + 1)]
    return [low]


def tick_text(value: float) -> str:
    """A tick's value: 1200000 as "1.2e+06", 0.25 as "0.25"."""
    return f"{round(value, 12):.4g}"


def padded(values: Sequence[float]) -> Range:
    """The finite values' range, a little wider; (0, 1) where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or 0.05 * abs(low) or 0.5
    return (low - room, high + room) if math.isfinite(room) else (0.0, 1.0)


class Axes:
    """Places of values in a rectangle; y grows upwards."""

    def __init__(self, drawing: Drawing, box: tuple[float, float, float, float], x: Range, y: Range):
        """Names the rectangle and what it shows.

        Args:
          drawing: what is drawn on.
          box: left, top, width and height.
          x: values at its left and right.
          y: values at its bottom and top.
        """
        self.drawing, self.box = drawing, box
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        """The place of a value along x."""
        return self.box[0] + self.box[2] * (value - self._x[0]) / (self._x[1] - self._x[0])

    def y(self, value: float) -> float:
        """The place of a value along y."""
        return self.box[1] + self.box[3] * (self._y[1] - value) / (self._y[1] - self._y[0])

    def grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
        """Draws the frame, lines at the ticks and their values."""
        left, top, width, height = (float(value) for value in self.box)
        for value in y_ticks:
            y = self.y(value)
            self.drawing.add("line", x1=left, x2=left + width, y1=y, y2=y, class_="grid")
            self.drawing.text(left - 4, y + 3.5, tick_text(value), "tick", "end")
        for value in x_ticks:
            x = self.x(value)
            self.drawing.add("line", x1=x, x2=x, y1=top + height, y2=top + height + 3, class_="axis")
            self.drawing.text(x, top + height + 14, tick_text(value), "tick", "middle")
        self.drawing.add("rect", x=left, y=top, width=width, height=height, class_="frame")

    def label(self, x: str = "", y: str = "") -> None:
        """Names the axes: x below its ticks, y above the rectangle."""
        left, top, width, height = self.box
        self.drawing.text(left + width / 2, top + height + 28, x, "tick", "middle")
        self.drawing.text(left, top - 6, y, "tick")
