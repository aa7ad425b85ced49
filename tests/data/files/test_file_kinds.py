"""What is no picture is called by its name, whatever its suffix says."""

import io

import numpy as np
import pytest
from PIL import Image

from emokd.data.decode import DecodeError, decode
from emokd.data.files import kinds as file_kinds


def media(*brands, size=400):
    """The beginning of an ISO media file: the length of its first box, its major brand, version, compatible ones."""
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(range(1, 200)) + bytes(size)


KINDS = {
    "HEIC": [media(b"heic", b"mif1", b"heic"), media(b"mif1", b"mif1", b"heic"), media(b"hevc")],
    "HEIF": [media(b"mif1", b"mif1")],
    "video": [media(b"isom", b"avc1"), media(b"qt  "), b"\x1aE\xdf\xa3" + bytes(50), b"RIFF\x01\0\0\0AVI LIST"],
    "raw": [media(b"crx "), b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), b"FUJIFILMCCD-RAW 0201"],
    "PDF": [b"%PDF-1.7\n"],
    "HTML": [b"<!DOCTYPE html>\n<html>", b"\xef\xbb\xbf\n <HTML><body>", b"<!-- saved -->\n<html>"]
    + ["<!doctype html><html>caf\u00e9</html>".encode("latin-1"), b"\n<HTML>\x93quoted\x94"],
    "Git LFS": [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"],
    "git-annex": [
        b"../../.git/annex/objects/aa/bb/SHA256E-s12--0.jpg/SHA256E-s12--0.jpg",
        b"/annex/objects/SHA256E-s12--0.jpg\n",
    ],
    "SVG": [b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'<?xml version="1.0"?>\n<svg/>'],
    "XML": [b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'],
    "JSON": [b'{"message": "Not Found"}'],
    "text": [b"404: Not Found", "colère".encode(), "404".encode("utf-16")],
    "AppleDouble": [b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "],
    "zip": [b"PK\x03\x04" + bytes(30)],
    "JPEG XL": [b"\xff\x0a" + bytes(30), b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(30)],
    "JPEG 2000": [b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(30)],
    "begins as AVIF does": [media(b"avif", b"mif1"), media(b"mif1", b"avif", b"miaf")],
    "cut off": [b"\0\0\0\x18ftyp", b"\0\0\0\x18ftypav"],
    "zero bytes": [bytes(1000)],
    "no picture of a kind that is read": [b"\x80\x81\x82garbage\x00\x01"],
}


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, several in KINDS.items() for data in several])
def test_kinds_are_named_with_a_remedy(kind, data):
    with pytest.raises(DecodeError) as caught:
        decode(data, "faces/x.jpg")
    message = str(caught.value)
    assert message.startswith("faces/x.jpg is ") and kind in message
    assert message.count(".") >= 2 and "object at 0x" not in message and "\n" not in message


def test_avif_is_named_only_where_it_cannot_be_read(monkeypatch):
    data = media(b"mif1", b"avif", b"miaf")
    assert file_kinds.foreign(data) is None
    monkeypatch.setattr(file_kinds, "_reads_avif", lambda: False)
    with pytest.raises(DecodeError, match="is AVIF, which the installed Pillow does not read. Convert"):
        decode(data, "x.avif")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG"])
def test_no_picture_passes_for_something_else(kind):
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 256, (seed + 1, 9, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        assert file_kinds.foreign(file.getvalue()[:512]) is None
        assert decode(file.getvalue(), "x").shape == pixels.shape


def test_damaged_pictures_say_why_without_python_objects():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(file, "PNG")
    for data in (
        file.getvalue()[:300],
        file.getvalue()[:20],
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM" + bytes(60),
        b"P6 x",
    ):
        with pytest.raises(DecodeError, match=r"^x\.png .*(Restore|remove)") as caught:
            decode(data, "x.png")
        assert "0x" not in str(caught.value)
    assert file_kinds.without_objects("broken <_io.BytesIO object at 0x7f00ab> here") == "broken the file here"


def test_the_thumbnail_of_a_camera_is_not_taken_for_its_picture():
    file = io.BytesIO()
    Image.new("RGB", (160, 120)).save(file, "TIFF", tiffinfo={0x00FE: 1})
    with pytest.raises(DecodeError, match=r"x\.nef begins with a small preview.*Export"):
        decode(file.getvalue(), "x.nef")
    whole = io.BytesIO()
    Image.new("RGB", (160, 120)).save(whole, "TIFF", tiffinfo={0x00FE: 0})
    assert decode(whole.getvalue(), "x.tif").shape == (120, 160, 3)
