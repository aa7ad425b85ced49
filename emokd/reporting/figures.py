"""Draws a report's figures: curves, confusion matrix and teachers' weights as SVG, figures of many points as PNG."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # Imported when a figure is drawn, because importing matplotlib takes a second.
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Curve = Sequence[tuple[int, float]]

# Names come from users: "$" in them does not begin a formula. Text is drawn as paths, so that the file needs no font.
STYLE: dict[Any, Any] = {"text.parse_math": False, "svg.fonttype": "path", "font.size": 9, "svg.hashsalt": "emokd"}
BACKGROUND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
COLUMNS = 3
MARKERS = "o^sDvPX*"


def curves(series: Mapping[str, Curve], phases: Sequence[tuple[str, int, int]]) -> str:
    """One small panel per metric over the global step, a line for each phase, phases as alternating bands.

    Args:
      series: (step, value) pairs of each metric, by its name; at least one.
      phases: (name, step at which it begins, last step) in order.
    """
    with _style():
        rows = -(-len(series) // COLUMNS)
        figure = _figure(figsize=(3.4 * min(len(series), COLUMNS), 2.3 * rows))
        for index, (name, points) in enumerate(series.items()):
            axes = figure.add_subplot(rows, min(len(series), COLUMNS), index + 1)
            # A metric may mean something else in another phase, so no line connects two phases.
            for _, first, last in phases:
                part = np.array([point for point in points if first < point[0] <= last], float).reshape(-1, 2)
                axes.plot(*part.T, color="#1f5fa8", linewidth=1.2, marker="." if len(points) <= 60 else None)
            axes.set_title(shortened(name, 40), fontsize=9)
            axes.grid(alpha=0.3)
            _bands(axes, phases, named=index == 0)
        figure.supxlabel("step", fontsize=9)
        return _svg(figure)


def _style() -> AbstractContextManager:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(figsize: tuple[float, float]) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained")


def shortened(name: str, limit: int = 24) -> str:
    """A name of at most `limit` characters: of a longer one its beginning and its end."""
    return name if len(name) <= limit else f"{name[: limit // 2]}...{name[-(limit // 2 - 3) :]}"


def _bands(axes: "Axes", phases: Sequence[tuple[str, int, int]], *, named: bool) -> None:
    axes.set_xlim(phases[0][1], max(phases[-1][2], phases[0][1] + 1))
    for index, (name, first, last) in enumerate(phases):
        if index % 2:
            axes.axvspan(first, last, color="black", alpha=0.06, linewidth=0)
        if named and last > first:
            place = axes.get_xaxis_transform()
            axes.text(
                (first + last) / 2,
                0.97,
                name,
                transform=place,
                ha="center",
                va="top",
                fontsize=6,
                rotation=90,
                bbox=BACKGROUND,
            )


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> str:
    """A heat map of the share of each true class that is predicted as each class, with the counts written in.

    Args:
      counts: [C, C], rows are true classes.
      classes: C names.
    """
    counts = np.asarray(counts, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
    texts = [[f"{value:g}" for value in row] for row in np.round(counts, 1)]
    with _style():
        side = 1.8 + 0.48 * len(classes)
        figure = _figure(figsize=(side + 0.6, side))
        axes = figure.add_subplot()
        image = _heat(axes, shares, texts, classes, classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
        return _svg(figure)


def teacher_weights(weights: np.ndarray, rows: Sequence[str], teachers: Sequence[str]) -> str:
    """A heat map of mean weights; NaN where a teacher has none.

    Args:
      weights: [R, K].
      rows: R names, "all" and the classes.
      teachers: K names.
    """
    weights = np.asarray(weights, float)
    texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in weights]
    with _style():
        figure = _figure(figsize=(2.4 + 0.7 * len(teachers), 1.2 + 0.3 * len(rows)))
        axes = figure.add_subplot()
        image = _heat(axes, weights, texts, rows, teachers)
        figure.colorbar(image, ax=axes, label="mean weight")
        return _svg(figure)


@dataclasses.dataclass(frozen=True, eq=False)
class SimilarityColumn:
    """One column of the figure `similarity`: two matrices over the same examples.

    Attributes:
      titles: of the upper and of the lower matrix.
      matrices: cosines [N, N], rows and columns in ascending order of `labels`.
      labels: [N] class ids, or values; NaN, for no label, at the end.
    """

    titles: tuple[str, str]
    matrices: tuple[np.ndarray, np.ndarray]
    labels: Float[np.ndarray, " N"]


def similarity(columns: Sequence[SimilarityColumn], classes: Sequence[str]) -> bytes:
    """Similarity matrices as PNG: a column for each moment, in one colour scale, with lines between classes.

    Args:
      columns: at least one.
      classes: names by class id; empty where the labels are values.
    """
    lowest = min(float(matrix.min()) for column in columns for matrix in column.matrices)
    with _style():
        figure = _figure(figsize=(3.4 * len(columns) + 1.2, 6.6))
        grid = figure.subplots(2, len(columns), squeeze=False)
        for place, column in enumerate(columns):
            for axes, title, matrix in zip(grid[:, place], column.titles, column.matrices, strict=True):
                image = axes.imshow(matrix, cmap="viridis", vmin=lowest, vmax=1.0, interpolation="nearest")
                axes.set_title(shortened(title, 40), fontsize=9)
                _class_ticks(axes, column.labels, classes)
        figure.colorbar(image, ax=grid, shrink=0.6, label="cosine")
        if not classes:
            figure.supxlabel("examples by valence, ascending", fontsize=9)
        return _png(figure)


def representations(
    panels: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    labels: Float[np.ndarray, " N"],
    classes: Sequence[str],
) -> bytes:
    """Points as PNG: a panel for each space, a marker for each set of points, a colour for each class or value.

    Args:
      panels: (title, {set: points [N, 2]}); rows of NaN are not drawn.
      labels: [N] class ids, or values; NaN for none, which is grey.
      classes: names by class id; empty where the labels are values.
    """
    painted, colours = label_colours(labels, classes)
    with _style():
        figure = _figure(figsize=(4.6 * len(panels) + 1.6, 4.4))
        markers: dict[str, str] = {}
        for axes, (title, sets) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
            for name, points in sets.items():
                marker = markers.setdefault(name, MARKERS[len(markers) % len(MARKERS)])
                axes.scatter(*points.T, c=painted, marker=marker, s=16, alpha=0.75, linewidths=0)
            axes.set_title(title, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        handles = [_handle(name, marker, "black") for name, marker in markers.items()]
        handles += [_handle(name, "o", colours(i % colours.N)) for i, name in enumerate(classes) if (labels == i).any()]
        figure.legend(handles=handles, loc="outside right upper", fontsize=8)
        if not classes:
            from matplotlib import cm, colors

            scale = cm.ScalarMappable(colors.Normalize(-1, 1), colours)
            figure.colorbar(scale, ax=figure.axes, shrink=0.6, label="valence")
        return _png(figure)


def label_colours(
    labels: Float[np.ndarray, " N"], classes: Sequence[str]
) -> tuple[Float[np.ndarray, "N 4"], "Colormap"]:
    """RGBA of each label (a class id or, without classes, a value in [-1, 1]; grey for NaN), and the colour map."""
    import matplotlib

    colours = matplotlib.colormaps[("tab10" if len(classes) <= 10 else "tab20") if classes else "coolwarm"]
    known = np.isfinite(labels)
    values = np.where(known, labels, 0)
    painted = colours(values.astype(int) % colours.N if classes else (values + 1) / 2)
    painted[~known] = (0.6, 0.6, 0.6, 1.0)
    return painted, colours


def _class_ticks(axes: "Axes", labels: Float[np.ndarray, " N"], classes: Sequence[str]) -> None:
    """The classes' names at their blocks of rows and columns, and lines between the blocks."""
    axes.set_xticks([])
    axes.set_yticks([])
    if not classes:
        return
    filled = np.where(np.isfinite(labels), labels, len(classes)).astype(int)
    present, first, count = np.unique(filled, return_index=True, return_counts=True)
    names = [shortened([*classes, "unlabelled"][i], 14) for i in present]
    axes.set_yticks(first + (count - 1) / 2, names, fontsize=7)
    for border in first[1:] - 0.5:
        axes.axhline(border, color="white", linewidth=0.6)
        axes.axvline(border, color="white", linewidth=0.6)


def _handle(name: str, marker: str, colour: Any) -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=marker, color=colour, label=shortened(name))


def _heat(
    axes: "Axes", values: np.ndarray, texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str]
):
    finite = values[np.isfinite(values)]
    top = max(1.0, float(finite.max())) if finite.size else 1.0
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), map(shortened, columns), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), map(shortened, rows))
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            color = "white" if values[i, j] > 0.6 * top else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    return image


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
