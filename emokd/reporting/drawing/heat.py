"""A matrix as a picture of one pixel a cell, with the classes' names beside their blocks."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from emokd.reporting.drawing.svg import Drawing, shortened


def draw_matrix(
    title: str,
    values: Float[np.ndarray, "N N"],
    limits: tuple[float, float],
    labels: Float[np.ndarray, " N"],
    classes: Sequence[str],
) -> Drawing:
    """A square matrix over examples that are sorted by label, in matplotlib's colours "viridis".

    Args:
      title: above the picture.
      values: the matrix.
      limits: the values of the first and of the last colour.
      labels: ascending class ids, or values; NaN, for none, at the end.
      classes: names by class id; empty where the labels are values.
    """
    from matplotlib import colormaps  # seconds, and only these pages need it

    low, high = limits
    shares = (values - low) / max(high - low, 1e-12)
    pixels = (colormaps["viridis"](np.clip(shares, 0, 1))[..., :3] * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    off = values[~np.eye(len(values), dtype=bool)]
    said = f"{title}: similarities of {len(values)} examples, mean {off.mean() if off.size else 1:.3f}"
    drawing = Drawing(360, 300, said)
    drawing.text(8, 14, shortened(title, 48), "title")
    drawing.add(
        "image", x=88.0, y=24.0, width=266.0, height=266.0, href=source, preserveAspectRatio="none", class_="cells"
    )
    drawing.add("rect", x=88.0, y=24.0, width=266.0, height=266.0, class_="frame")
    if classes:
        filled = np.where(np.isfinite(labels), labels, len(classes)).astype(int)
        present, first, count = np.unique(filled, return_index=True, return_counts=True)
        unit = 266.0 / len(values)
        for which, begin, size in zip(present.tolist(), first.tolist(), count.tolist(), strict=True):
            name = [*classes, "unlabelled"][which]
            drawing.text(84, 24 + (begin + size / 2) * unit + 3.5, shortened(name, 14), "tick", "end")
            if begin:
                place = begin * unit
                drawing.add("line", x1=88.0, x2=354.0, y1=24 + place, y2=24 + place, class_="cut")
                drawing.add("line", x1=88 + place, x2=88 + place, y1=24.0, y2=290.0, class_="cut")
    return drawing
