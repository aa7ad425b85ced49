"""The occlusion map against what an engine of known answers must give."""

import io

import numpy as np
import pytest
from PIL import Image

from emokd.errors import InputError
from emokd.inference.occlusion import explain
from emokd.inference.signature import IMAGE, Input, Signature
from emokd.inference.student import Student
from emokd.weights.seen_as import SeenAs

SIDE = 16
SIGNATURE = Signature(
    {IMAGE: Input(IMAGE, (SIDE, SIDE, 3), "picture")}, {"expression": ("dark", "bright"), "valence_arousal": ()}
)


def engine(arrays):
    """`bright` is the redness of the pixel in row 4 and column 10."""
    red = arrays[IMAGE][:, 4, 10, 0] / 255.0
    return {"expression": np.stack([1 - red, red], 1), "valence_arousal": np.zeros((len(red), 2))}


@pytest.fixture
def student():
    return Student(SIGNATURE, engine, SeenAs(SIDE, "crop", "landmarks"), batch_size=8)


def picture():
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[4, 10, 0] = 255
    return pixels


def test_only_squares_that_cover_the_one_pixel_change_the_answer(student):
    """The square's side is 4 and its step 1, so it reaches 3 pixels to each side, and covers with the mean red, 1."""
    found = explain(student, picture())
    assert (found.label, found.probability) == ("bright", 1.0)
    rows, columns = np.nonzero(found.drop)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 7, 7, 13)
    assert np.unravel_index(found.drop.argmax(), found.drop.shape) == (4, 10)
    np.testing.assert_allclose(found.drop[4, 10], 1 - 1 / 255)
    np.testing.assert_allclose(found.drop[4, 11], 0.75 * (1 - 1 / 255))  # 12 of its 16 squares cover the pixel as well


def test_another_class_may_be_asked_about_and_rises(student):
    found = explain(student, picture(), label="dark")
    np.testing.assert_allclose(found.drop, -explain(student, picture()).drop)


def test_the_drawing_is_a_picture_of_the_canvas(student):
    found = explain(student, picture())
    with Image.open(io.BytesIO(found.png())) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (SIDE, SIDE))
        red, _, blue = np.asarray(drawn)[4, 9]
        assert red > blue  # where covering lowers the probability


@pytest.mark.parametrize(
    ("options", "said"),
    [({"head": "valence_arousal"}, "It has: expression"), ({"label": "dull"}, "It has: dark, bright")],
)
def test_what_the_model_does_not_say_cannot_be_explained(student, options, said):
    with pytest.raises(InputError, match=said):
        explain(student, picture(), **options)
