import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from lazily import Lazily
from PIL import Image, ImageOps

from emokd.data import decode as decode_module
from emokd.data.decode import DecodeError, decode, read_file, to_canvas
from emokd.errors import InputError

torch = Lazily("torch")


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(height, width):
    """A smooth colour picture without symmetries."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (255 * np.stack([x, y, (1 - x) * y], -1)).astype(np.uint8)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_jpeg_agrees_with_pillow():
    data = encode(Image.fromarray(photo(48, 80)), "JPEG", quality=95)
    ours = decode(data, "x.jpg")
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - np.asarray(Image.open(io.BytesIO(data))).astype(int)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(kind):
    np.testing.assert_array_equal(decode(encode(Image.fromarray(photo(5, 7)), kind), "x"), photo(5, 7))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_one_pixel(kind):
    assert decode(encode(Image.new("RGB", (1, 1), "white"), kind), "x").tolist() == [[[255, 255, 255]]]


def test_grey_palette_bilevel():
    grey = Image.fromarray(photo(6, 6)[..., 0])
    expected = np.repeat(photo(6, 6)[..., :1], 3, -1)
    np.testing.assert_array_equal(decode(encode(grey), "x"), expected)
    assert np.abs(decode(encode(grey, "JPEG", quality=100), "x").astype(int) - expected).max() <= 2
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putdata([1, 0])
    assert decode(encode(palette), "x").tolist() == [[[200, 100, 0], [10, 20, 30]]]
    assert decode(encode(Image.new("1", (1, 1), 1)), "x").tolist() == [[[255, 255, 255]]]


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (3, 1))
    clear.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    pixels = decode(encode(clear), "x")[0].tolist()
    assert pixels[:2] == [[255, 0, 0], [255, 255, 255]]
    assert abs(pixels[2][0] - 127) <= 1
    grey = Image.new("LA", (1, 1), (0, 0))
    assert decode(encode(grey), "x").tolist() == [[[255, 255, 255]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert decode(encode(palette, transparency=0), "x").tolist() == [[[255, 255, 255]]]


def test_cmyk_jpeg_agrees_with_pillow():
    data = encode(Image.fromarray(photo(32, 32)).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "x.jpg"), expected)
    assert np.abs(expected.astype(int) - photo(32, 32)).max() < 20


def test_sixteen_bit_grey_is_scaled():
    values = np.array([[0, 128, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encode(Image.fromarray(values), kind), "x")[0, :, 0].tolist() == [0, 0, 128, 255]


def test_floating_point_grey_is_refused():
    with pytest.raises(DecodeError, match=r"x\.tif.*8 or 16 bits"):
        decode(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "x.tif")


@pytest.mark.parametrize("orientation", range(0, 10))
@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG", "TIFF"])
def test_exif_rotation(kind, orientation):
    image = Image.fromarray(photo(16, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "CMYK":
        image, kind = image.convert("CMYK"), "JPEG"
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(image, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    ours = decode(data, "x")
    assert ours.shape == ((32, 16, 3) if 5 <= orientation <= 8 else (16, 32, 3))
    assert np.abs(ours.astype(int) - expected).max() <= 3


def test_a_damaged_exif_block_does_not_spoil_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(photo(16, 32)), "JPEG", exif=exif)
    assert decode(
        data.replace(b"Exif\0\0MM\0*", b"Exif\0\0QQQQ").replace(b"Exif\0\0II*\0", b"Exif\0\0QQQQ"), "x"
    ).shape == (
        16,
        32,
        3,
    )


def test_reduced_decoding_keeps_both_sides_large_enough():
    data = encode(Image.fromarray(photo(400, 640)), "JPEG", quality=95)
    small = decode(data, "x", min_side=100)
    assert small.shape == (100, 160, 3)
    full = np.asarray(Image.open(io.BytesIO(data)).resize((160, 100), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - full).max() <= 4
    assert decode(data, "x", min_side=1000).shape == (400, 640, 3)
    cmyk = encode(Image.fromarray(photo(400, 640)).convert("CMYK"), "JPEG")
    assert decode(cmyk, "x", min_side=100).shape == (100, 160, 3)


def test_corrupt_pictures_name_their_file():
    jpeg = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
    png = encode(Image.fromarray(photo(64, 64)))
    for data in (b"", b"\xff\xd8", b"no picture", jpeg[: len(jpeg) // 2], jpeg[:100], png[: len(png) // 2], png[:20]):
        with pytest.raises(DecodeError, match=r"dir/x\.jpg"):
            decode(data, "dir/x.jpg")


def test_read_file(tmp_path):
    Image.fromarray(photo(5, 7)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_file(tmp_path / "x.png"), photo(5, 7))
    with pytest.raises(DecodeError, match=r"y\.png cannot be read: No such file"):
        read_file(tmp_path / "y.png")


def test_random_damage_gives_a_picture_or_a_decode_error():
    rng = np.random.default_rng(0)
    outcomes = set()
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        clean = encode(Image.fromarray(photo(40, 40)), kind)
        for _ in range(40):
            data = bytearray(clean)
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(0, 256)
            try:
                outcomes.add(decode(bytes(data), "x").shape[2])
            except DecodeError:
                outcomes.add("error")
    assert outcomes == {3, "error"}


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(DecodeError):
        decode(encode(Image.fromarray(photo(4, 4)), "EPS"), "x.eps")


def test_large_pictures(monkeypatch):
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 10_000)
    jpeg = Image.fromarray(photo(300, 200))
    assert decode(encode(jpeg, "JPEG"), "x").shape == (75, 50, 3)
    assert decode(encode(jpeg, "JPEG"), "x", min_side=30).shape[1] >= 30
    for data in (encode(jpeg, "JPEG", progressive=True), encode(jpeg), encode(jpeg.convert("CMYK"), "JPEG")):
        with pytest.raises(DecodeError, match=r"x\.png is 200 x 300.*10,000 pixels"):
            decode(data, "x.png")
    with pytest.raises(DecodeError, match="even at an eighth"):
        decode(encode(Image.new("L", (900, 900)), "JPEG"), "x")


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_twenty_thousand_square():
    huge = Image.new("1", (20_000, 20_000), 1)
    png, jpeg = encode(huge), encode(huge.convert("L"), "JPEG")
    del huge
    tracemalloc.start()
    pixels = decode(jpeg, "huge.jpg", min_side=224)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert pixels.shape == (2500, 2500, 3)
    assert pixels.min() == 255
    with pytest.raises(DecodeError, match=r"huge\.png.*64,000,000"):
        decode(png, "huge.png")


@pytest.mark.filterwarnings("error")
def test_decompression_bomb_warnings_become_our_error():
    with pytest.raises(DecodeError, match=r"x\.png.*64,000,000"):
        decode(encode(Image.new("1", (10_000, 10_000))), "x.png")


def test_canvas_crop_pad_squash():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 255  # the centre square is white
    assert to_canvas(pixels, 20, "crop").min() == 255
    padded = to_canvas(np.full((40, 80, 3), 200, np.uint8), 20, "pad")
    assert padded[:5].max() == padded[15:].max() == 0
    assert padded[5:15].min() == padded[5:15].max() == 200
    squashed = to_canvas(pixels, 20, "squash")
    assert squashed[:, :4].max() == 0
    assert squashed[:, 6:14].min() > 250
    for fit in decode_module.FITS:
        for shape in ((1, 1, 3), (3, 500, 3), (500, 3, 3), (20, 20, 3)):
            canvas = to_canvas(np.full(shape, 7, np.uint8), 20, fit)
            assert canvas.shape == (20, 20, 3)
            assert canvas.max() == 7


def test_canvas_of_the_right_size_is_unchanged_and_a_copy():
    pixels = photo(16, 16)
    for fit in decode_module.FITS:
        canvas = to_canvas(pixels, 16, fit)
        np.testing.assert_array_equal(canvas, pixels)
        assert not np.shares_memory(canvas, pixels)
        assert canvas.flags.writeable


def test_canvas_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(to_canvas(stripes, 32).astype(int) - 127).max() <= 4


@pytest.mark.parametrize("shape", [(17, 17), (24, 24), (32, 32), (27, 19), (31, 32)])
def test_a_canvas_near_the_pictures_size_is_interpolated_linearly(shape):
    """Against NumPy's interpolation of rows, then of columns, at the centres of pixels."""
    pixels, size = noise(*shape), 24

    def interpolate(values, length):
        places = (np.arange(size) + 0.5) * length / size - 0.5
        return np.apply_along_axis(lambda line: np.interp(places, np.arange(length), line), 0, values)

    expected = interpolate(pixels.astype(np.float64), shape[0])
    expected = interpolate(expected.swapaxes(0, 1), shape[1]).swapaxes(0, 1)
    np.testing.assert_allclose(to_canvas(pixels, size, "squash"), expected, atol=1)


@pytest.mark.parametrize("shape", [(33, 33), (48, 30), (90, 100)])
def test_a_canvas_much_smaller_than_the_picture_is_antialiased_as_by_torch(shape):
    pixels = noise(*shape)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, (24, 24), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(to_canvas(pixels, 24, "squash"), expected, atol=1.5)


def test_a_crop_is_the_middle_and_may_be_a_view_turned_round():
    pixels = noise(40, 61)
    for source in (pixels, pixels[::-1, ::-1]):
        np.testing.assert_array_equal(to_canvas(source, 40, "crop"), source[:, 10:50])
        np.testing.assert_array_equal(to_canvas(source, 36, "crop"), to_canvas(source[:, 10:50].copy(), 36, "squash"))


def test_canvas_refusals():
    with pytest.raises(InputError, match="crop, squash, pad"):
        to_canvas(photo(4, 4), 4, "stretch")
    with pytest.raises(InputError, match="at least 1"):
        to_canvas(photo(4, 4), 0)


def png_of(width: int, height: int) -> bytes:
    """A PNG that declares a size, and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (1, 64_000_000, "longest side is limited to 65,535"),
        (65_536, 1, "longest side is limited to 65,535"),
        (8_001, 8_000, "limit for pictures that cannot be decoded at a reduced size is 64,000,000"),
        (30_000, 30_000, "too many pixels to be decoded safely"),
    ],
)
def test_a_picture_is_refused_by_the_size_that_it_declares(width, height, message):
    with pytest.raises(DecodeError, match=message):
        decode(png_of(width, height), "bomb.png")


def test_webp_has_a_limit_of_its_own(monkeypatch):
    data = encode(Image.fromarray(photo(12, 12)), "WEBP")
    monkeypatch.setitem(decode_module.MAX_PIXELS_OF, "WEBP", 143)
    with pytest.raises(DecodeError, match=r"12 x 12 pixels \(WEBP\); the limit .* is 143 pixels"):
        decode(data, "x.webp")


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA", "I;16", "CMYK", "1"])
def test_strips_join_to_the_whole_picture(mode, monkeypatch):
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 65536, (21, 13)).astype(np.uint16)
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray(
        rng.integers(0, 256, (21, 13, 4), np.uint8), "RGBA"
    ).convert("RGB" if mode in ("P", "CMYK") else "RGBA" if mode == "LA" else mode).convert(mode)  # fmt: skip
    data = encode(image, "TIFF")
    whole = decode(data, "x.tif")
    monkeypatch.setattr(decode_module, "_STRIP", 50)  # three rows, or what is left
    np.testing.assert_array_equal(decode(data, "x.tif"), whole)
