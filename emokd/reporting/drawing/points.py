"""Points in a plane: valence and arousal, and networks' representations in two dimensions."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emokd.reporting.drawing.axes import Axes, padded
from emokd.reporting.drawing.svg import Drawing, colour, element

MOST = 200
"""Points of the valence-arousal plane that are drawn at most."""

SHAPES = ("circle", "square", "diamond", "triangle")


def spread(count: int, most: int = MOST) -> np.ndarray:
    """The places of at most `most` of `count` points, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def draw_affect(answers: Float[np.ndarray, "N 2"], labels: Float[np.ndarray, "N 2"], description: str) -> Drawing:
    """The valence-arousal plane: a line from each label (ring) to the student's answer (dot)."""
    drawing = Drawing(400, 400, description)
    axes = Axes(drawing, (40, 24, 340, 340), (-1.05, 1.05), (-1.05, 1.05))
    axes.grid([-1, -0.5, 0, 0.5, 1], [-1, -0.5, 0, 0.5, 1])
    axes.label(x="valence", y="arousal")
    drawing.add("circle", cx=axes.x(0), cy=axes.y(0), r=axes.x(1) - axes.x(0), class_="grid hollow")
    drawing.add("line", x1=axes.x(0), x2=axes.x(0), y1=axes.y(-1), y2=axes.y(1), class_="grid")
    for place in spread(len(labels)):
        (v, a), (tv, ta) = answers[place].tolist(), labels[place].tolist()
        told = element("title", f"label {tv:.2f}, {ta:.2f}; answer {v:.2f}, {a:.2f}")
        drawing.add("line", x1=axes.x(tv), y1=axes.y(ta), x2=axes.x(v), y2=axes.y(a), class_="thread")
        drawing.add("circle", told, cx=axes.x(tv), cy=axes.y(ta), r=3.0, class_="ring s1")
        drawing.add("circle", told, cx=axes.x(v), cy=axes.y(a), r=3.0, class_="dot s0")
    return drawing


def draw_points(
    title: str, sets: Mapping[str, Float[np.ndarray, "N 2"]], labels: Float[np.ndarray, " N"], classes: Sequence[str]
) -> Drawing:
    """Sets of points in one space: a shape for each set, a colour for each class.

    Args:
      title: above the panel.
      sets: points by name; rows that are not finite are not drawn.
      labels: [N] class ids, or values from -1 to 1; NaN for none, which is grey.
      classes: names by class id; empty where the labels are values.
    """
    rows = {name: np.isfinite(points).all(1) for name, points in sets.items()}
    count = {name: int(kept.sum()) for name, kept in rows.items()}
    said = ", ".join(f"{name} ({SHAPES[i % len(SHAPES)]}, {n} points)" for i, (name, n) in enumerate(count.items()))
    drawing = Drawing(360, 330, f"{title}: {said}")
    drawing.text(8, 14, title, "title")
    joined = np.concatenate([points[rows[name]] for name, points in sets.items()])
    axes = Axes(drawing, (10, 24, 340, 300), padded(joined[:, 0].tolist()), padded(joined[:, 1].tolist()))
    axes.grid([], [])
    for index, (name, points) in enumerate(sets.items()):
        for place in np.flatnonzero(rows[name]):
            told, style, own = _look(labels[place], classes)
            x, y = axes.x(points[place, 0]), axes.y(points[place, 1])
            _shape(drawing, SHAPES[index % len(SHAPES)], x, y, f"{name}: {told}", f"dot faint {style}", own)
    return drawing


def _look(label: float, classes: Sequence[str]) -> tuple[str, str, Mapping[str, str]]:
    """What a label is called, the style of its point, and attributes of it."""
    if not np.isfinite(label):
        return "unlabelled", "quiet", {}
    if classes:
        return classes[int(label)], colour(int(label)), {}
    return f"{label:.2f}", "valued", {"style": f"--value: {(label + 1) / 2:.2f}"}


def _shape(drawing: Drawing, shape: str, x: float, y: float, told: str, style: str, own: Mapping[str, str]) -> None:
    title = element("title", told)
    if shape == "circle":
        drawing.add("circle", title, cx=x, cy=y, r=3.2, class_=style, **own)
        return
    outline = {
        "square": ((-2.8, -2.8), (2.8, -2.8), (2.8, 2.8), (-2.8, 2.8)),
        "diamond": ((0, -4), (4, 0), (0, 4), (-4, 0)),
        "triangle": ((0, -3.8), (3.6, 2.8), (-3.6, 2.8)),
    }[shape]
    places = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in outline)
    drawing.add("polygon", title, points=places, class_=style, **own)
