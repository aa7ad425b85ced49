"""Draws MT-PKDOT's figures 4 and 5 as PNG: similarities between examples, and representations in two dimensions."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from emokd.reporting.drawing.svg import shortened

if TYPE_CHECKING:  # Imported when a figure is drawn, because importing matplotlib takes a second.
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Names come from users: "$" in them does not begin a formula.
STYLE: dict[Any, Any] = {"text.parse_math": False, "font.size": 9}
MARKERS = "o^sDvPX*"


def _style() -> AbstractContextManager:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(figsize: tuple[float, float]) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained")


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


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
