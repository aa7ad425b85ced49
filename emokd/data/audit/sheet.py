"""A contact sheet: a few pictures of every class on one page."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from emokd.data.decode import to_canvas
from emokd.data.division.strata import find_strata
from emokd.data.examples import Examples, stable_hash
from emokd.errors import InputError

SIDE, ACROSS, HEADING = 96, 10, 16
"""Side of a picture (pixels), pictures of each class, and height of a class's heading (pixels)."""


def contact_sheet(examples: Examples) -> UInt8[np.ndarray, "H W 3"]:
    """Draws a row for each class (or third of valence): its name, its number of examples and `ACROSS` pictures.

    The pictures are chosen by a hash of their names, so the same set gives the same sheet. A picture that cannot be
    read is a grey square with a red stroke.

    Raises:
      InputError: the examples have no pictures.
    """
    if "image" not in examples.inputs:
        raise InputError(f"--sheet: the examples of {examples.name} have no pictures. Leave --sheet out.")
    strata, names = find_strata(examples)
    rows = [(name, np.flatnonzero(strata == i)) for i, name in enumerate(names)]
    rows = [(name, members) for name, members in rows if len(members)]
    sheet = Image.new("RGB", (ACROSS * SIDE, len(rows) * (SIDE + HEADING)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, members) in enumerate(rows):
        top = row * (SIDE + HEADING)
        heading = f"{name}: {len(members)}"
        # Pillow's built-in font has ASCII letters only.
        draw.text((2, top + 2), heading.encode("ascii", "replace").decode(), fill="black")
        chosen = sorted(members.tolist(), key=lambda i: stable_hash(examples.keys[i], "sheet"))[:ACROSS]
        for place, i in enumerate(chosen):
            sheet.paste(_picture(examples, i), (place * SIDE, top + HEADING))
    return np.asarray(sheet)


def as_png(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _picture(examples: Examples, i: int) -> Image.Image:
    try:
        return Image.fromarray(to_canvas(examples.inputs["image"](i), SIDE, "pad"))
    except InputError:
        crossed = Image.new("RGB", (SIDE, SIDE), "grey")
        ImageDraw.Draw(crossed).line((0, 0, SIDE, SIDE), fill="red", width=2)
        return crossed
