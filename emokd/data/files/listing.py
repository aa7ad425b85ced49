"""Lists the files of a folder that count, for training and prediction alike, and reads files without blocking."""

import collections
import dataclasses
import os
import stat
from collections.abc import Iterable, Sequence

PICTURE_SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
    )
)
"""Suffixes of the pictures that the decoder reads, in lower case."""

UNREAD_SUFFIXES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".xcf", ".svg", ".ico", ".tga"),
        *(".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw"),
        *(".exr", ".hdr", ".dcm"),
    )
)
"""Suffixes of pictures that the decoder does not read. Users may miss these, so the log gives a remedy for them."""

_OF_FILE_MANAGERS = frozenset(
    (
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    )
)


def is_picture(name: str) -> bool:
    """Whether a file's name ends like that of a picture that can be decoded; letter case does not matter."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (no path) is ignored.

    Its name begins with a dot (`._x.png`, `.DS_Store`), or a file manager made it (`__MACOSX`, `Thumbs.db`).
    """
    return name.startswith(".") or name.lower() in _OF_FILE_MANAGERS


def by_suffix(names: Iterable[str], limit: int = 8) -> str:
    """How many of the files have which suffix, the most frequent first, and what to do about pictures among them.

    Such as "120 .heic, 3 .txt, 1 without suffix (.heic are pictures that are not read: convert them to JPEG or PNG)".
    """
    count = collections.Counter(os.path.splitext(name)[1].lower() for name in names)
    ordered = sorted(count, key=lambda suffix: (-count[suffix], suffix))
    shown = [f"{count[suffix]} {suffix or 'without suffix'}" for suffix in ordered[:limit]]
    if len(ordered) > limit:
        shown.append(f"{sum(count[suffix] for suffix in ordered[limit:])} of {len(ordered) - limit} more kinds")
    unread = [suffix for suffix in ordered if suffix in UNREAD_SUFFIXES]
    remedy = f" ({', '.join(unread)} are pictures that are not read: convert them to JPEG or PNG)" if unread else ""
    return ", ".join(shown) + remedy


MOST_BYTES = 1 << 30
"""Of one file that is read whole: a picture of as many pixels as are decoded has half of it. What is larger is none."""


@dataclasses.dataclass
class Listing:
    """The content of a folder. Names are relative, with forward slashes.

    Attributes:
      names: files, including links whose target is gone: these fail when they are read, as damaged files do.
      directories: folders.
      hidden: hidden files and folders (what is inside these is not counted).
      special: pipes, sockets and devices, which are never opened.
      unlisted: folders that cannot be listed, with the reason.
      outside: members of an archive whose names lead out of it by `..`.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    directories: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    special: list[str] = dataclasses.field(default_factory=list)
    unlisted: list[str] = dataclasses.field(default_factory=list)
    outside: list[str] = dataclasses.field(default_factory=list)

    def left_out(self) -> str:
        """Says what is left out regardless of suffixes; empty where nothing is."""
        parts = [
            (self.hidden, "hidden ones (names that begin with a dot, __MACOSX, Thumbs.db and the like)"),
            (self.special, "pipes, sockets, devices or links in an archive"),
            (self.unlisted, "folders that cannot be listed"),
            (self.outside, "members whose names lead out of the archive by '..'"),
        ]
        return "; ".join(f"{len(names)} {what}, such as {sorted(names)[0]}" for names, what in parts if names)


def list_folder(path: str) -> Listing:
    """Lists everything under a folder, sorted. Links are followed, and each real folder is listed once."""
    listing, visited = Listing(), set()
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        folder = os.path.join(path, prefix)
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            listing.unlisted.append(f"{folder} ({error.strerror or error})")
            continue
        below = []
        for entry in ordered:
            name = prefix + entry.name
            if is_hidden(entry.name):
                listing.hidden.append(name)
            elif _is_folder(entry):
                listing.directories.append(name)
                below.append(f"{name}/")
            elif _is_special(entry):
                listing.special.append(name)
            else:
                listing.names.append(name)
        waiting += reversed(below)
    for part in (listing.names, listing.directories, listing.hidden, listing.special, listing.unlisted):
        part.sort()
    return listing


def read_regular(path: str | os.PathLike) -> bytes:
    """Reads the bytes of a regular file. Does not block on a pipe, a socket or a device, which are refused.

    Raises:
      OSError: it cannot be read, is no regular file, or has more than `MOST_BYTES`; `strerror` says why.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name with a NUL
        raise OSError(None, str(error), os.fspath(path)) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        what = not_regular(status.st_mode)
        if what:
            raise OSError(None, f"it is {what}, not a file", os.fspath(path))
        if status.st_size > MOST_BYTES:
            raise OSError(None, f"it has {status.st_size:,} bytes, more than any picture", os.fspath(path))
        return file.read()


def not_regular(mode: int) -> str:
    """The kind of a file that is not a regular one, from its mode (as in `os.stat`); empty for a regular file."""
    kinds: Sequence[tuple] = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((what for test, what in kinds if test(mode)), "")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or through a folder that may not be entered
        return False


def _is_special(entry: os.DirEntry) -> bool:
    """Whether an entry is a pipe, a socket or a device. Calls stat only where the listing does not say "file"."""
    try:
        return not entry.is_file() and bool(not_regular(entry.stat().st_mode))
    except OSError:
        return False
