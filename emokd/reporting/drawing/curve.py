"""One metric over a run's steps: a line for each phase, phases as labelled bands."""

import math
from collections.abc import Mapping, Sequence

from emokd.reporting.drawing.axes import Axes, padded, tick_text, ticks
from emokd.reporting.drawing.svg import Drawing, colour, element, number, shortened

Curve = Sequence[tuple[int, float]]
Span = tuple[str, int, int]
"""A phase: its name, the step at which it begins, its last step."""

POINTS = 400
"""Most points of a line in one phase; of more, every n-th is drawn, and the last."""

_CHARACTER = 5.6
"""Width of a character of a band's name, units."""


def draw_curves(
    title: str, curves: Mapping[str, Curve], phases: Sequence[Span], limits: tuple[float, float] | None = None
) -> Drawing:
    """A small panel with one or several metrics over the global step.

    No line connects two phases, since a metric may mean something else in another phase. Values that are not finite
    leave a gap.

    Args:
      title: above the panel.
      curves: (step, value) pairs by name; names are shown where there are several.
      phases: in order.
      limits: lowest and highest value of y; None for those of the points.
    """
    drawing = Drawing(360, 216, described(title, curves, phases))
    drawing.text(8, 14, shortened(title, 48), "title")
    low, high = limits or padded([value for curve in curves.values() for _, value in curve])
    first, last = phases[0][1], max(phases[-1][2], phases[0][1] + 1)
    axes = Axes(drawing, (52, 38, 300, 150), (first, last), (low, high))
    for index, (name, begin, end) in enumerate(phases):
        left, width = axes.x(begin), axes.x(end) - axes.x(begin)
        label = name if len(name) * _CHARACTER < width - 6 else str(index + 1)
        drawing.add(
            "rect", element("title", f"phase {name}, steps {begin} to {end}"), x=left, y=22.0, width=max(width, 0.0),
            height=166.0, class_=f"band{index % 2}",
        )  # fmt: skip
        if len(label) * _CHARACTER < width:
            drawing.text(left + width / 2, 33, label, "band", "middle")
    axes.grid(ticks(first, last, 6), ticks(low, high))
    for index, (name, curve) in enumerate(curves.items()):
        for _, begin, end in phases:
            part = thinned([point for point in curve if begin < point[0] <= end])
            runs = "".join(_path(axes, run) for run in _unbroken(part))
            if runs:
                drawing.add("path", element("title", name), d=runs, class_=f"line {colour(index)}")
            if len(part) <= 60:
                dots = [(axes.x(step), axes.y(value)) for step, value in part if math.isfinite(value)]
                for x, y in dots:
                    drawing.add("circle", cx=x, cy=y, r=1.8, class_=f"dot {colour(index)}")
    drawing.text(202, 213, "step", "tick", "middle")
    return drawing


def thinned(points: Curve, most: int = POINTS) -> Curve:
    """Every n-th of the points, and the last, so that there are no more than about `most`."""
    every = -(-len(points) // most) if points else 1
    return points if every == 1 else [*points[:-1:every], points[-1]]


def _unbroken(points: Curve) -> list[Curve]:
    """The stretches of finite values."""
    runs: list[list[tuple[int, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(axes: Axes, run: Curve) -> str:
    return "".join(
        f"{'L' if place else 'M'}{number(axes.x(step))} {number(axes.y(value))}"
        for place, (step, value) in enumerate(run)
    )


def described(title: str, curves: Mapping[str, Curve], phases: Sequence[Span]) -> str:
    """The panel in words: of each metric and phase the first and the last value."""
    told = []
    for name, curve in curves.items():
        for phase, begin, end in phases:
            part = [(step, value) for step, value in curve if begin < step <= end and math.isfinite(value)]
            if part:
                (s0, v0), (s1, v1) = part[0], part[-1]
                to = f" to {tick_text(v1)} at step {s1}" if len(part) > 1 else ""
                told.append(f"{name} in phase {phase}: {tick_text(v0)} at step {s0}{to}")
    return f"Curve of {title}. {'; '.join(told[:12])}{'; and more' if len(told) > 12 else ''}."
