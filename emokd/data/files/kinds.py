"""Says by its first bytes what a file is that the decoder cannot read, and what to do with it."""

import functools
import re

from PIL import features

_CONVERT = "Convert it to JPEG or PNG."
_EXPORT = "Export the picture as JPEG or PNG, and give that."
_UNPACK = "Unpack it and give the pictures."
_FETCH = "Download the picture itself again."
_VIDEO = "Give a picture; python -m emokd.predict --video reads videos."

# (offset, bytes, what it is, remedy). No format that the decoder reads begins with these.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF", "a PDF document", _EXPORT),
    (0, b"%!PS", "a PostScript document", _EXPORT),
    (0, b"8BPS", "a Photoshop document", _EXPORT),
    (0, b"gimp xcf", "a GIMP document", _EXPORT),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL", _CONVERT),
    (0, b"\xff\x0a", "JPEG XL", _CONVERT),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)", _CONVERT),
    (0, b"\x76\x2f\x31\x01", "OpenEXR", _CONVERT),
    (0, b"#?RADIANCE", "Radiance HDR", _CONVERT),
    (128, b"DICM", "DICOM", _CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw picture (RAF)", _EXPORT),
    (0, b"IIU\x00", "a camera's raw picture (RW2)", _EXPORT),
    (0, b"IIRO", "a camera's raw picture (ORF)", _EXPORT),
    (0, b"IIRS", "a camera's raw picture (ORF)", _EXPORT),
    (8, b"CR\x02\x00", "a camera's raw picture (CR2)", _EXPORT),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _VIDEO),
    (0, b"\x00\x00\x01\xba", "a video (MPEG)", _VIDEO),
    (0, b"\x00\x00\x01\xb3", "a video (MPEG)", _VIDEO),
    (0, b"FLV\x01", "a video (FLV)", _VIDEO),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)", _VIDEO),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (0, b"BZh", "compressed by bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x93NUMPY", "a NumPy array", "Save it as PNG."),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "Save its pictures as PNG."),
    (0, b"SQLite format 3\x00", "a database", "Give the pictures."),
    (0, b"OggS", "Ogg sound or video", _VIDEO),
    (0, b"ID3", "sound (MP3)", "Give a picture."),
    (0, b"fLaC", "sound (FLAC)", "Give a picture."),
    (0, b"\x7fELF", "a program", "Give a picture."),
    (0, b"\x00\x05\x16\x07", "what macOS keeps beside a picture (AppleDouble, `._NAME`)", "Give NAME itself."),
    (0, b"\x00\x05\x16\x00", "what macOS keeps beside a picture (AppleSingle)", "Give the picture itself."),
)
# HEIF, AVIF, CR3 and MP4 share one container, and differ in its "brand" of four letters.
_HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HEIF_OF_ANY_CODEC = frozenset((b"mif1", b"msf1", b"mif2", b"miaf"))
_AVIF = frozenset((b"avif", b"avis"))
_RIFF = {b"AVI ": ("a video (AVI)", _VIDEO), b"WAVE": ("sound (WAV)", "Give a picture.")}
_ANNEX = ("a git-annex pointer, not the picture", "Fetch it: git annex get.")
# (how a text begins, after white space and in lower case; what it is; remedy).
_TEXTS: tuple[tuple[str, str, str], ...] = (
    ("version https://git-lfs", "a Git LFS pointer, not the picture", "Fetch it: git lfs pull."),
    ("<!doctype html", "a web page (HTML), not a picture", _FETCH),
    ("<html", "a web page (HTML), not a picture", _FETCH),
    ("<svg", "SVG, a drawing", _CONVERT),
    ("{", "text (JSON), not a picture", _FETCH),
)
# First bytes of the formats that the decoder reads.
_READ: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"GIF8", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_READ += ((b"RIFF", "WebP"), (b"BM", "BMP"), *((b"P%d" % i, "PNM") for i in range(1, 8)))
_SOME = 4096  # bytes of a text that are examined
_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


def foreign(data: bytes) -> tuple[str, str] | None:
    """What a file is that the decoder cannot read, and the remedy; None where it might be a picture.

    Args:
      data: the file, or its first 512 bytes.
    """
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    for offset, signature, what, remedy in _SIGNATURES:
        if data.startswith(signature, offset):
            return what, remedy
    return None


def undecodable(data: bytes) -> tuple[str, str]:
    """What a file is that the decoder has failed to read, and the remedy."""
    kinds = [kind for signature, kind in _READ if data.startswith(signature)]
    if data[4:8] == b"ftyp" and _iso_media(data) is None:
        kinds.append("AVIF")
    if kinds:
        return f"damaged: it begins as {kinds[0]} does and cannot be read any further", "Restore or remove the file."
    verdict = foreign(data) or _text(data)
    if verdict:
        return verdict
    if not data.strip(b"\x00"):
        return "nothing but zero bytes, as a copy leaves that was cut off", "Restore or remove the file."
    return "no picture of a kind that is read (JPEG, PNG, BMP, GIF, WebP, TIFF, PNM, AVIF)", (
        "Restore or remove the file, or convert it."
    )


def without_objects(message: str) -> str:
    """A library's message with "the file" for `<... object at 0x7f...>`, which says nothing to users."""
    return _OBJECT.sub("the file", message)


def _iso_media(data: bytes) -> tuple[str, str] | None:
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, min(length, len(data)), 4))]
    major = brands[0]
    if len(major) < len(b"avif"):
        return "cut off after a few bytes", "Restore or remove the file."
    if major in _AVIF or (major in _HEIF_OF_ANY_CODEC and _AVIF.intersection(brands)):
        return None if _reads_avif() else ("AVIF, which the installed Pillow does not read", _CONVERT)
    if major in _HEIF or _HEIF.intersection(brands):
        return "HEIC, as iPhones take pictures", _CONVERT
    if major in _HEIF_OF_ANY_CODEC:
        return "HEIF", _CONVERT
    if major == b"crx ":
        return "a camera's raw picture (CR3)", _EXPORT
    if major == b"jxl ":
        return "JPEG XL", _CONVERT
    return "a video (MP4 or QuickTime)", _VIDEO


@functools.cache
def _reads_avif() -> bool:
    return bool(features.check("avif"))


def _text(data: bytes) -> tuple[str, str] | None:
    """What kind of text a file is, and the remedy; None where it is no text."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if data.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        encoding = "latin-1"  # pages of any encoding begin so
    # The last character may be cut in two.
    start = data[:_SOME].decode(encoding, errors="replace")
    body = start[:-4] if len(data) > _SOME else start
    if not body or "\ufffd" in body or any(ord(c) < 32 and c not in "\t\n\r\f" for c in body):
        return None
    lower = body.lstrip().lower()
    if "/annex/objects/" in lower.partition("\n")[0]:
        return _ANNEX
    for beginning, what, remedy in _TEXTS:
        if lower.startswith(beginning):
            return what, remedy
    if lower.startswith(("<?xml", "<!--", "<!doctype")):
        for beginning, what, remedy in _TEXTS:
            if beginning.startswith("<") and beginning in lower:
                return what, remedy
        return "text (XML), not a picture", _FETCH
    return "text, not a picture", _FETCH
