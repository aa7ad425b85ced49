import numpy as np
import pytest

from emokd.data.face_crop import crop_box, crop_square, landmark_box, square_around
from emokd.errors import InputError


def coordinates(width, height):
    """A picture whose pixel at (x, y) is (x, y, 200)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 200)], axis=-1).astype(np.uint8)


def test_landmark_box():
    landmarks = np.array([[30.0, 41.5], [12.25, 60.0], [44.0, 50.0]])
    assert landmark_box(landmarks) == (12.25, 41.5, 44.0, 60.0)


# By hand: side = 0.909 (width + height) to the nearest pixel, the edges half of it from the centre.
@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((0, 0, 100, 100), (-41, -41, 182)),  # 181.8; 50 - 91
        ((20, 40, 120, 140), (-21, -1, 182)),
        ((10, 10, 60, 110), (-33, -8, 136)),  # 136.35; 35 - 68, 60 - 68
        ((0, 0, 30, 20), (-7, -12, 45)),  # 45.45; 15 - 22.5 = -7.5 and 10 - 22.5 = -12.5, halves up
        ((1, 0, 31, 20), (-6, -12, 45)),  # moved by one, by one
        ((0.5, 0.5, 2.8, 2.8), (0, 0, 4)),  # 4.18; 1.65 - 2 = -0.35
    ],
)
def test_square_around(box, square):
    assert square_around(box) == square


def test_square_around_at_another_scale():
    assert square_around((10, 20, 50, 80), scale=0.5) == (5, 25, 50)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5, 0, 5, 10), r"\(5, 0, 5, 10\) .* has no area"),
        ((0, 10, 10, 0), "has no area"),
        ((0, 0, float("nan"), 10), "has no area"),
        ((0, 0, float("inf"), 10), "has no area"),
        ((0, 0, 1e6, 1e6), "too large"),
        ((0.25, 0.25, 0.75, 0.9), r"\(0\.25, 0\.25, 0\.75, 0\.9\) .* is too small: .* Are these fractions"),
        ((0, 0, 1, 1), "too small"),
    ],
)
def test_wrong_boxes(box, message):
    with pytest.raises(InputError, match=message):
        square_around(box)


def test_crop_square_inside():
    cut = crop_square(coordinates(20, 10), 3, 2, 4)
    assert cut.shape == (4, 4, 3)
    assert cut.dtype == np.uint8
    assert cut[0, 0].tolist() == [3, 2, 200]
    assert cut[1, 3].tolist() == [6, 3, 200]


@pytest.mark.parametrize(("x0", "y0", "side"), [(-3, -2, 6), (15, 5, 9), (-2, 3, 4), (-5, -5, 40), (19, 9, 1)])
def test_crop_square_is_black_outside(x0, y0, side):
    picture = coordinates(20, 10)
    cut = crop_square(picture, x0, y0, side)
    padded = np.pad(picture, ((50, 50), (50, 50), (0, 0)))
    np.testing.assert_array_equal(cut, padded[50 + y0 : 50 + y0 + side, 50 + x0 : 50 + x0 + side])
    assert cut.any()


@pytest.mark.parametrize(("x0", "y0"), [(20, 0), (0, 10), (-4, 0), (0, -4)])
def test_crop_square_that_misses_the_picture(x0, y0):
    with pytest.raises(InputError, match=rf"side 4 at \({x0}, {y0}\) is outside the picture, which is 20 x 10"):
        crop_square(coordinates(20, 10), x0, y0, 4)


def test_crop_box():
    picture = coordinates(100, 100)
    np.testing.assert_array_equal(crop_box(picture, (40, 50, 60, 70)), picture[42:78, 32:68])  # side 36.36
    np.testing.assert_array_equal(crop_box(picture, (40, 50, 60, 70), scale=0.5), picture[50:70, 40:60])
    # Partly outside: centre (0, 60), side 36.
    cut = crop_box(picture, (-10, 50, 10, 70))
    assert not cut[:, :18].any()
    np.testing.assert_array_equal(cut[:, 18:], picture[42:78, :18])


@pytest.mark.parametrize("box", [(100, 0, 120, 20), (0, 100, 20, 120), (-20, 0, 0, 20), (0, -20, 20, 0)])
def test_crop_box_outside_the_picture_though_its_square_is_not(box):
    with pytest.raises(InputError, match="is outside the picture, which is 100 x 100 pixels"):
        crop_box(coordinates(100, 100), box)
