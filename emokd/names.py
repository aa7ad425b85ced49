"""Brings names, as people and file systems write them, to one normal form before they are compared."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"
# Invisible characters inside a text: the combining grapheme joiner, and variation selectors (as after an emoji).
_MARKS = frozenset(map(chr, (0x034F, *range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_EDGES = "".join(chr(c) for c in range(0x3001) if chr(c).isspace()) + _UNSEEN


def normal(text: str) -> str:
    r"""A name in Unicode's form C (NFC), without spaces and invisible characters around it.

    Archives from a Mac hold names in form D ("e" followed by an accent), while keyboards write form C.

    Examples:
      >>> normal(" Jose\u0301 ") == "Jos\u00e9"
      True
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip(_EDGES)


def normal_path(text: str) -> str:
    r"""A relative path in Unicode's form C, with single forward slashes and no `.` or `x/..` in it.

    Examples:
      >>> normal_path(".\\faces//a.png")
      'faces/a.png'
    """
    return posixpath.normpath(unicodedata.normalize("NFC", text).replace("\\", "/"))


def essence(text: str) -> str:
    """A name without letter case, spaces, invisible characters and typographic forms of letters, for comparisons.

    The dotless and the dotted i count as one letter: which of them is the lower case of "I" depends on the language.

    Examples:
      >>> essence("Very Happy") == essence("VERYHAPPY")
      True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = (c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf" and c not in _MARKS)
    return "".join(seen).replace("i\u0307", "i").replace("\u0131", "i")


def undecodable(names: Iterable[str]) -> list[str]:
    """The names that are not text: Python returns file names that are not UTF-8 with lone surrogates in them."""
    return [name for name in names if any("\ud800" <= c <= "\udfff" for c in name)]


def number_essence(text: str) -> str:
    """`essence` without leading zeros of numbers and a final decimal part of zeros: "S 01" and "s1.0" give "s1".

    Examples:
      >>> number_essence("S 01"), number_essence("s1.0")
      ('s1', 's1')
    """
    return re.sub(r"\.0+$", "", re.sub(r"(?<!\d)0+(?=\d)", "", essence(text)))


def look_alikes(names: Iterable[str], by=essence) -> list[tuple[str, ...]]:
    """The sets of different names for which the function `by` gives the same text, each set sorted.

    Examples:
      >>> look_alikes(["happy", "Happy", "sad"])
      [('Happy', 'happy')]
    """
    found = defaultdict(set)
    for name in names:
        found[by(name)].add(name)
    return sorted(tuple(sorted(same)) for same in found.values() if len(same) > 1)
