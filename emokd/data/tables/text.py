"""Reads small text files as people save them: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one."""

import codecs
import os
import re
from typing import TextIO

from emokd.data.files.listing import not_regular
from emokd.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = (
    (b"PK\x03\x04", "a spreadsheet (.xlsx) or another zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
"""Control characters, which no text of names and numbers holds."""


def open_text(path: str) -> TextIO:
    """Opens a text file by its byte order mark, without translating line ends.

    Raises:
      InputError: it is missing, cannot be read, or is no text by its first bytes. Later bytes may still be no text:
        reading then raises UnicodeDecodeError, and `not_text` says why.
    """
    try:
        what = not_regular(os.stat(path).st_mode)
        if what and not os.path.isdir(path):  # opening a folder says what it is
            raise InputError(f"{path} cannot be read: it is {what}, not a file. Name another one.")
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(f"The file {path} does not exist. Put it there or name another one.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if any(head.startswith(magic) for magic, _ in _MAGIC) or _seems_utf16(head):
        raise not_text(path)
    return open(path, encoding=_encoding(head), newline="")


def read_text(path: str) -> str:
    """The text of a small file, whatever its line ends were.

    Raises:
      InputError: it is missing, cannot be read, is no text, or holds control characters; the message names the line.
    """
    with open_text(path) as file:
        try:
            text = file.read()
        except UnicodeError:
            raise not_text(path) from None
    text = re.sub(r"\r\n?", "\n", text)
    if match := CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise InputError(f"{path}, line {line}: there is the control character {match[0]!r}. Correct the line.")
    return text


def not_text(path: str) -> InputError:
    """The error for a file that is not readable as text: says what it seems to be."""
    with open(path, "rb") as file:
        data = file.read()
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return InputError(f"{path} is not text: it seems to be {kind}. Save it as UTF-8 text (CSV).")
    encoding = _encoding(data)
    if encoding != "utf-8-sig":
        return InputError(f"{path} begins like {encoding.upper()} text but is damaged or cut off. Save it as UTF-8.")
    if _seems_utf16(data[:64]):
        return InputError(
            f"{path} is not UTF-8 text: it seems to be UTF-16 without a byte order mark. Save it as UTF-8."
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return InputError(
            f"{path} is not UTF-8 text (line {line}: {error.reason}); it seems to be in an older encoding, such as "
            "Windows-1252 or Latin-1. Save it as UTF-8."
        )
    return InputError(f"{path} cannot be read as text. Save it as UTF-8.")


def read_lines(path: str) -> list[str]:
    """The lines of a small text file, without their ends; see `read_text`."""
    return read_text(path).removesuffix("\n").split("\n")


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")


def _seems_utf16(head: bytes) -> bool:
    """Whether every other byte is zero, as in Latin letters in UTF-16."""
    pairs = len(head) // 2
    if pairs < 2 or _encoding(head) != "utf-8-sig":
        return False
    return any(head[start : 2 * pairs : 2].count(0) > 0.8 * pairs for start in (0, 1))
