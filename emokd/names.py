"""Names as people and file systems write them, brought to one normal form before they are compared."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"
_EDGES = "".join(chr(c) for c in range(0x3001) if chr(c).isspace()) + _UNSEEN


def normal(text: str) -> str:
    """A name in Unicode's form C, without spaces and unseen marks around it.

    An archive from a Mac has its names in form D ("e" and an accent), what a keyboard writes is in form C.
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip(_EDGES)


def normal_path(text: str) -> str:
    """A relative path in Unicode's form C, with single forward slashes and no `.` or `x/..` in it."""
    return posixpath.normpath(unicodedata.normalize("NFC", text).replace("\\", "/"))


def essence(text: str) -> str:
    """What is left of a name without letter case, spaces, unseen characters and typographic forms of letters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")


def number_essence(text: str) -> str:
    """`essence` without leading zeros of numbers and a decimal part of zeros: of "S 01" and "s1.0" it is "s1"."""
    return re.sub(r"\.0+$", "", re.sub(r"(?<!\d)0+(?=\d)", "", essence(text)))


def look_alikes(names: Iterable[str], by=essence) -> list[tuple[str, ...]]:
    """The sets of different names that are the same `by` that function, each in sorted order."""
    found = defaultdict(set)
    for name in names:
        found[by(name)].add(name)
    return sorted(tuple(sorted(same)) for same in found.values() if len(same) > 1)
