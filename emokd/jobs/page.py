"""A run's page with what only its data and its recipe can tell: pictures of mistakes, and the recipe's defaults."""

import base64
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.data.decode import DecodeError, to_canvas
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs.workdir import read_config
from emokd.reporting import predictions, report
from emokd.reporting.page.answers import Thumbnails, most_confident

SIDE = 144
"""Side of a thumbnail, pixels."""


def write_page(
    workdir: pathlib.Path, remarks: Sequence[str] = (), *, thumbnails: Thumbnails | None = None
) -> pathlib.Path:
    """Writes the run's report.html, see `emokd.reporting.report.write_report`, with its recipe's defaults."""
    return report.write_report(workdir, remarks, defaults=_defaults(workdir), thumbnails=thumbnails)


def _defaults(workdir: pathlib.Path) -> Mapping[str, Any] | None:
    """The defaults of the run's recipe; None where its configuration cannot be read or the recipe is not there."""
    try:
        config = read_config(workdir / "config.json")
        return json.loads(configuration.to_json(recipes.find(config.recipe).default_config()))
    except InputError:
        return None


def thumbnails_of(workdir: pathlib.Path, splits: Mapping[str, Examples]) -> Thumbnails:
    """The pictures of the student's most confident mistakes, small, with their names.

    A picture that cannot be read is left out; the page says so in its place.

    Args:
      workdir: the folder of a finished run.
      splits: its examples.

    Raises:
      InputError: no answers are kept there, or the examples have no pictures.
    """
    kept = predictions.read(workdir)
    if kept is None:
        raise InputError(f"--thumbnails shows the student's mistakes, but {workdir} has no {predictions.FILE} yet.")
    examples = splits[kept.split]
    if "image" not in examples.inputs:
        raise InputError(f"--thumbnails shows pictures, but the examples of {examples.name} have none.")
    rows = {kept.classified[t].rows[place] for t, places in most_confident(kept).items() for place in places}
    wanted = {(int(kept.ids[row]), int(kept.checks[row])) for row in rows}
    names = zip(examples.ids.tolist(), examples.checks.tolist(), strict=True)
    found = {}
    for place, name in enumerate(names):
        if name in wanted:
            try:
                found[name] = (examples.keys[place], jpeg(to_canvas(examples.inputs["image"](place), SIDE, "pad")))
            except DecodeError:
                continue
    return found


def jpeg(pixels: np.ndarray) -> str:
    """RGB pixels, uint8 [H, W, 3], as a JPEG in base64."""
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return base64.b64encode(content.tobytes()).decode()
