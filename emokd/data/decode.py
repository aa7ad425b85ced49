"""Decodes pictures to RGB pixels, and resamples pixels to the square canvas that training augments."""

import io
import math
import os
import struct

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from emokd.data.files import kinds as file_kinds
from emokd.data.files.listing import read_regular
from emokd.errors import InputError

MAX_PIXELS = 64_000_000
"""The most pixels of one decoded picture (192 MB as RGB). Larger baseline JPEGs are decoded at a reduced size.

The size that a file declares is checked before anything is decoded. Decoding a picture of so many pixels takes up to
450 MB per reading thread besides the file, as measured for PNG and TIFF with transparency."""
MAX_PIXELS_OF = {"WEBP": 25_000_000, "AVIF": 25_000_000}
"""The most pixels in formats whose decoders hold several copies of the picture."""
MAX_SIDE = 65_535
"""The longest side in pixels, JPEG's own limit: Pillow needs as much memory for each row as for a few pixels."""

FITS = ("crop", "squash", "pad")
"""How a picture fills a square canvas; see `to_canvas`."""

# A closed list: some of Pillow's other formats start external programs.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
_STRIP = 1 << 20  # pixels
_ORIENTATION = 0x0112
_SUBFILE_TYPE = 0x00FE  # of TIFF; bit 0: this is a reduced version of another picture in the file
_REDUCTIONS = (1, 2, 4, 8)
# The largest factor by which plain linear interpolation shrinks a picture. At 4/3 it passes .41 of the amplitude of the
# finest stripes, an antialiasing triangle filter .17; larger factors would alias more. A JPEG that was decoded at n/8
# of its size has less than a factor n/(n - 1) left.
_LINEAR_UP_TO = 4 / 3


class DecodeError(InputError):
    """A picture that cannot be decoded; the message names its file."""


def decode(data: bytes, name: str, min_side: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a picture to upright RGB.

    JPEG goes through simplejpeg; what that refuses, CMYK, and all other formats through Pillow. Grey, palette
    and CMYK become RGB, transparency is laid on white, 16-bit grey is scaled to 8 bits, the EXIF rotation is
    applied. Animations give their first frame.

    Args:
      data: the file's bytes.
      name: the file's name, for messages.
      min_side: when positive, a JPEG may be decoded at a reduced size (n/8) whose sides are both at least this.

    Returns:
      uint8 pixels; a baseline JPEG above `MAX_PIXELS` comes reduced by 2, 4 or 8.

    Raises:
      DecodeError: the bytes are empty, corrupt, truncated, of another format (which the message names if it is
        known), or too large a picture.
    """
    if not data:
        raise DecodeError(f"{name} is empty. Restore or remove the file.")
    if data[:2] == b"\xff\xd8":
        pixels = _decode_jpeg(data, name, min_side)
        if pixels is not None:
            return pixels
    kind = file_kinds.foreign(data)
    if kind:
        raise _is_no_picture(name, kind)
    return _decode_any(data, name, min_side)


def read_file(path: str | os.PathLike, min_side: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """Reads and decodes one picture file, see `decode`.

    Raises:
      DecodeError: the file cannot be read or decoded.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise DecodeError(f"{path} cannot be read: {error.strerror or error}. Correct the path.") from error
    return decode(data, str(path), min_side)


def to_canvas(pixels: UInt8[np.ndarray, "H W 3"], size: int, fit: str = "crop") -> UInt8[np.ndarray, "S S 3"]:
    """Resamples a picture to a square: linearly by OpenCV where it grows or shrinks to at least three quarters [ours].

    What shrinks more is antialiased by Pillow (triangle filter, after box reduction of very large ones), which takes
    several times as long.

    Args:
      pixels: RGB of any size.
      size: side of the square.
      fit: `crop` cuts out the square in the middle and scales it to `size`; `squash` scales both sides, ignoring
        the aspect; `pad` scales the long side to `size` and puts the picture in the middle of black.

    Raises:
      InputError: an unknown fit, or a size below 1.
    """
    if fit not in FITS:
        raise InputError(f"There is no fit {fit!r} for config.data.fit. Choose one of {', '.join(FITS)}.")
    if size < 1:
        raise InputError(f"The canvas size must be at least 1, not {size}.")
    height, width = pixels.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if fit != "pad" or height == width:
        return _resample(pixels, size, size)
    scale = size / max(height, width)
    resampled = _resample(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    height, width = resampled.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = resampled
    return canvas


def _resample(pixels: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A resampled copy, see `to_canvas` for the filters."""
    if pixels.shape[:2] == (height, width):
        return np.array(pixels)
    if max(pixels.shape[0] / height, pixels.shape[1] / width) <= _LINEAR_UP_TO:
        return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _decode_jpeg(data: bytes, name: str, min_side: int) -> np.ndarray | None:
    """Decodes with simplejpeg, or returns None for what Pillow must try."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space.upper() in ("CMYK", "YCCK"):
        return None
    if height * width > MAX_PIXELS and _progressive(data):
        # All coefficients of a progressive picture must be held at once, whatever the size asked for.
        raise _too_large(name, width, height, "progressive JPEG", MAX_PIXELS)
    reduction = next((r for r in _REDUCTIONS if height * width <= MAX_PIXELS * r * r), None)
    if reduction is None:
        raise _too_large(name, width, height, "JPEG, even at an eighth of its size", MAX_PIXELS)
    floor_height, floor_width = (
        (math.ceil(height / reduction), math.ceil(width / reduction)) if reduction > 1 else (0, 0)
    )
    if min_side > 0:
        floor_height = min(floor_height, min_side) if floor_height else min_side
        floor_width = min(floor_width, min_side) if floor_width else min_side
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=floor_height, min_width=floor_width)
    except ValueError:
        return None
    return _upright(pixels, _jpeg_orientation(data))


def _decode_any(data: bytes, name: str, min_side: int) -> np.ndarray:
    Image.init()
    formats = [kind for kind in _FORMATS if kind in Image.OPEN]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.format in ("JPEG", "MPO") and min_side > 0 and image.width * image.height <= MAX_PIXELS:
                image.draft(image.mode, (min_side, min_side))
            limit = MAX_PIXELS_OF.get(str(image.format), MAX_PIXELS)
            if image.width * image.height > limit:
                raise _too_large(name, image.width, image.height, str(image.format), limit)
            if max(image.size) > MAX_SIDE:
                raise DecodeError(
                    f"{name} is {image.width} x {image.height} pixels; the longest side is limited to {MAX_SIDE:,}. "
                    "Cut the picture up."
                )
            _refuse_preview(image, name)
            image.load()
            return to_rgb(image, name)
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(
            f"{name} has too many pixels to be decoded safely; the limit is {MAX_PIXELS:,}. "
            "Shrink the picture, or save it as a baseline JPEG."
        ) from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise _is_no_picture(name, file_kinds.undecodable(data)) from error
    except Exception as error:  # Pillow raises almost any exception on corrupt files.
        why = file_kinds.without_objects(str(error)) or type(error).__name__
        raise DecodeError(f"{name} cannot be decoded as a picture: {why}. Restore or remove the file.") from error


def _is_no_picture(name: str, kind: tuple[str, str]) -> DecodeError:
    what, remedy = kind
    return DecodeError(f"{name} is {what}. {remedy}")


def _refuse_preview(image: Image.Image, name: str) -> None:
    """Refuses cameras' raw files (NEF, ARW, DNG): TIFF files whose first picture, the one read, is a thumbnail."""
    if image.format == "TIFF" and int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 1:
        raise DecodeError(
            f"{name} begins with a small preview of the picture, as cameras' raw files do (NEF, ARW, DNG). "
            "Export the picture as JPEG or PNG, and give that."
        )


def to_rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """A PIL image as upright RGB, see `decode`.

    It is converted in strips of rows, so that the copies made in between are of one strip only.

    Raises:
      DecodeError: it holds 32-bit or floating-point grey; `name` says which picture.
    """
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        below = min(top + rows, image.height)
        pixels[top:below] = _strip_to_rgb(image.crop((0, top, image.width, below)), name)
    return pixels


def _strip_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_grey(np.asarray(image), image.mode, name)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image).convert("RGB"))
    return np.array(image.convert("RGB"))


def _scale_grey(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    if mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DecodeError(
            f"{name} holds 32-bit or floating-point grey, whose range is not known. Save it with 8 or 16 bits."
        )
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _too_large(name: str, width: int, height: int, kind: str, limit: int) -> DecodeError:
    return DecodeError(
        f"{name} is {width} x {height} pixels ({kind}); the limit for pictures that cannot be decoded at a reduced "
        f"size is {limit:,} pixels. Shrink the picture, or save it as a baseline JPEG."
    )


def _progressive(data: bytes) -> bool:
    """Whether the first start-of-frame marker of a JPEG is a progressive one."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in (0xC2, 0xC6, 0xCA, 0xCE):
            return True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return False
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 where there is none. Uses Pillow's EXIF parser without opening the picture."""
    start = data.find(b"Exif\x00\x00")
    if start < 4 or data[start - 4 : start - 2] != b"\xff\xe1":
        return 1
    exif = Image.Exif()
    try:
        exif.load(data[start : start + 65536])
        return int(exif.get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OSError, struct.error):
        return 1  # A damaged EXIF block does not spoil the picture.


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (1 to 8; anything else counts as upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
