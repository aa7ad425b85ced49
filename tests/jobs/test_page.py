"""A run's page with pictures of its mistakes, and with its recipe's defaults."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from emokd.data.decode import DecodeError
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs import page
from emokd.recipes import supervised
from emokd.reporting import predictions

COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [90, 90, 90]], np.uint8)


def read(i):
    if i == 2:
        raise DecodeError("cut off")
    return np.broadcast_to(COLOURS[i], (40, 20, 3)).copy()


def examples(inputs):
    keys, labels = ["a.png", "b.png", "c.png", "d.png"], np.array([0, 0, 0, 1], np.int32)
    return Examples("set", keys, {"expression": labels}, {"expression": ("x", "y")}, inputs, content=str)


def answer(folder, found):
    """The first three pictures are taken for y wrongly, the last rightly; the file has them in another order."""
    order = np.array([3, 1, 0, 2])
    logits = np.array([[0, 2.0], [0, 1.0], [0, 3.0], [0, 4.0]])[order]
    columns = {"id": found.ids[order], "check": found.checks[order], "expression": found.columns["expression"][order]}
    predictions.write(folder, "test", {"expression": logits}, columns, found.classes)


def test_thumbnails_are_the_pictures_of_the_mistakes_by_name(tmp_path):
    found = examples({"image": read})
    answer(tmp_path, found)
    shown = page.thumbnails_of(tmp_path, {"test": found})
    assert {key for key, _ in shown.values()} == {"a.png", "b.png"}  # not the right one, not the unreadable one
    for place, key in enumerate(("a.png", "b.png")):
        told, jpeg = shown[int(found.ids[place]), int(found.checks[place])]
        with Image.open(io.BytesIO(base64.b64decode(jpeg))) as picture:
            assert told == key and picture.size == (page.SIDE, page.SIDE)
            np.testing.assert_allclose(np.asarray(picture)[70, 70], COLOURS[place], atol=6)


def test_what_has_no_pictures_or_no_answers_is_refused(tmp_path):
    found = examples({"physiology": read})
    with pytest.raises(InputError, match=r"no predictions\.npz"):
        page.thumbnails_of(tmp_path, {"test": found})
    answer(tmp_path, found)
    with pytest.raises(InputError, match="have none"):
        page.thumbnails_of(tmp_path, {"test": found})


def test_the_page_has_what_differs_from_the_recipes_defaults(tmp_path):
    config = supervised.default_config()
    config.seed, config.data.source = 5, "painter"
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    text = page.write_page(tmp_path).read_text()
    assert "2 settings that differ from the recipe&#39;s defaults" in text
    config.recipe = "gone"
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert "defaults are not known here" in page.write_page(tmp_path).read_text()
