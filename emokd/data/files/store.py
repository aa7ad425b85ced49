"""Reads the files of a data set in place, from a folder or a zip archive, by many threads at once."""

import collections
import contextlib
import hashlib
import os
import pathlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

from absl import logging

from emokd.data.files.listing import MOST_BYTES, Listing, is_hidden, is_picture, list_folder, read_regular
from emokd.errors import InputError, excerpt
from emokd.names import normal, normal_path

_LOCAL_HEADER = 30
_EXTRA_GUESS = 64
_ENCRYPTED = 0x1
_UTF8 = 0x800
_SMALL = 1 << 28
_LARGEST_RATIO = 100  # of a member of more than `_SMALL` bytes to what it takes in the archive: more is a zip bomb
_UNIX = 3  # zip's code for archives made on Unix, whose members have a file mode


class FileError(InputError):
    """One file of a data set cannot be read, or is damaged; the message names it. Other files may be intact."""


class Files:
    """A fixed set of named files. Names are relative, with forward slashes.

    Reading is thread-safe and needs no lock; objects pickle without their open handles, so worker processes
    open their own. Hidden files (see `listing.is_hidden`) and files that are not regular are left out, and the log
    counts them.

    Attributes:
      where: path of the folder or archive, for messages.
      names: every file's name, sorted.
      directories: every directory's name, sorted, the empty ones included.
    """

    where: str
    names: Sequence[str]
    directories: Sequence[str]

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
          InputError: there is no such file.
          FileError: it cannot be read, or is damaged.
        """
        raise NotImplementedError

    def signature(self, name: str) -> str:
        """A cheap fingerprint: equal for files of equal bytes, and often different where the bytes differ.

        Raises:
          FileError: the file's size cannot be read.
        """
        raise NotImplementedError

    def checksum(self, name: str) -> str:
        """The size and CRC-32 of a file's bytes, or "" where it cannot be read.

        An archive stores both for each member. A file in a folder is read for it, unless it has been read before.
        """
        raise NotImplementedError

    def find(self, path: str) -> str | None:
        """The name of the file that a table calls `path`, or None.

        Accepts another Unicode form, spaces and invisible characters around it, backslashes, `./` and `//` in it, and
        paths that repeat the folder's or archive's own name.

        Raises:
          InputError: two files have that name in different Unicode forms, neither in the form asked for.
        """
        by_path = self._by_normal_path()
        prefix = normal_path(pathlib.Path(self.where).stem) + "/"
        spellings = (normal_path(path), normal_path(normal(path)))  # a file's own name may begin with a space
        for candidate in (*spellings, *(each.removeprefix(prefix) for each in spellings)):
            matches = by_path.get(candidate, ())
            if len(matches) > 1 and path.strip() in matches:
                return path.strip()
            if len(matches) > 1:
                raise InputError(
                    f"{self.where}: {len(matches)} files are called {candidate!r}, in different Unicode forms: "
                    f"{', '.join(map(ascii, matches))}. Rename all but one."
                )
            if matches:
                return matches[0]
        return None

    def pictures(self) -> list[str]:
        """The names of the files that look like pictures by their suffix."""
        return [name for name in self.names if is_picture(name)]

    def contents(self, names: Sequence[str]) -> Callable[[int], str]:
        """A function of i that gives equal texts for files `names[i]` of equal bytes, and for no others.

        A file whose cheap signature (size; in an archive also the checksum) is unique among `names` is not
        read; the others are hashed, each once. The texts compare within this data set, not across data sets. A file
        that cannot be read gets a unique text; the error appears when the file itself is read.
        """

        def signature(name: str) -> str:
            try:
                return self.signature(name)
            except FileError:
                return f"unreadable {name}"

        count = collections.Counter(signature(name) for name in names)

        digests: dict[int, str] = {}  # used by the search for duplicates, then by a teacher cache's key

        def content(i: int) -> str:
            if i not in digests:
                text = signature(names[i])
                if count[text] > 1:
                    try:
                        text += f"-{hashlib.blake2b(self.read(names[i]), digest_size=16).hexdigest()}"
                    except FileError:
                        text = f"unreadable {names[i]}"
                digests[i] = text
            return digests[i]

        return content

    def _by_normal_path(self) -> Mapping[str, Sequence[str]]:
        """The files of each path in normal form; several only where names differ in their Unicode form alone."""
        if not hasattr(self, "_known"):
            by_path = collections.defaultdict(list)
            for name in self.names:
                by_path[normal_path(name)].append(name)
            self._known = dict(by_path)
        return self._known


class Folder(Files):
    """Files under a folder; links are followed, each real folder once."""

    def __init__(self, path: str):
        self.where = str(path)
        listing = list_folder(self.where)
        self.names, self.directories = listing.names, listing.directories
        self._checksums: dict[str, str] = {}
        _tell(self.where, listing)

    def read(self, name: str) -> bytes:
        path = os.path.join(self.where, name)
        try:
            data = read_regular(path)
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}. Restore the file.") from error
        if name not in self._checksums:
            self._checksums[name] = f"{len(data):x}-{zlib.crc32(data):08x}"
        return data

    def checksum(self, name: str) -> str:
        if name not in self._checksums:
            try:
                self.read(name)
            except FileError:
                return ""
        return self._checksums[name]

    def signature(self, name: str) -> str:
        path = os.path.join(self.where, name)
        try:
            return f"{os.stat(path).st_size:x}"
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}. Restore the file.") from error


class Archive(Files):
    """Files in a zip archive, stored or deflated, each read by one positioned read (no seek, so no lock).

    A single top folder with the archive's own name is left out of the names: `images.zip` holding
    `images/a.jpg` gives `a.jpg`.
    """

    def __init__(self, path: str):
        self.where = str(path)
        try:
            with zipfile.ZipFile(self.where) as archive:
                entries = archive.infolist()
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise InputError(f"{self.where} is not a readable zip archive: {error}. Download it again.") from error
        top = normal_path(pathlib.Path(self.where).stem) + "/"
        named = [(_entry_name(entry), entry) for entry in entries]
        listing = Listing()
        listing.special = [name for name, entry in named if _special_entry(entry)]
        listing.outside = [name for name, _ in named if ".." in name.split("/")]
        inside = [name for name, _ in named if ".." not in name.split("/")]
        listing.hidden = [name for name in inside if any(is_hidden(part) for part in name.split("/") if part)]
        left_out = {*listing.hidden, *listing.special, *listing.outside}
        visible = [(name, entry) for name, entry in named if name not in left_out]
        if visible and all(normal_path(name + "x").startswith(top) for name, _ in visible):
            visible = [(name.partition("/")[2], entry) for name, entry in visible]
        self._entries: Mapping[str, zipfile.ZipInfo] = {
            name: entry for name, entry in visible if name and not name.endswith("/")
        }
        self._check_readable()
        _tell(self.where, listing)
        count = collections.Counter(name for name, _ in visible if name and not name.endswith("/"))
        if twice := sorted(name for name, n in count.items() if n > 1):
            logging.warning(
                "%s holds %d names more than once (a backslash counts as a slash); the last file of each counts: %s.",
                *(self.where, len(twice), excerpt(twice, 3)),
            )
        self.names = sorted(self._entries)
        parents = {name.rstrip("/") for name, _ in visible if name.endswith("/")}
        for name in self.names:
            parts = name.split("/")[:-1]
            parents |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
        self.directories = sorted(parents - {""})
        self._size = os.stat(self.where).st_size
        self._descriptor = os.open(self.where, os.O_RDONLY)

    def read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(f"{self.where} holds no file {name!r}. Check the table that names it.")
        unreadable = _unreadable(entry)
        if unreadable:
            raise FileError(f"{self.where}: {name} is {unreadable}. Unpack the archive and give the folder.")
        if entry.file_size > min(MOST_BYTES, max(_SMALL, _LARGEST_RATIO * entry.compress_size)):
            raise self._damaged(name, f"it would take {entry.file_size:,} bytes, more than any picture")
        data = self._stored_bytes(name, entry)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            try:
                # At most one byte more than it declares: a member that holds more is not inflated to its end.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.file_size + 1)
            except zlib.error as error:
                raise self._damaged(name, str(error)) from error
        if len(data) != entry.file_size:
            raise self._damaged(name, "it has another size than the archive says")
        if zlib.crc32(data) != entry.CRC:
            raise self._damaged(name, "its checksum does not match")
        return data

    def signature(self, name: str) -> str:
        entry = self._entries[name]
        return f"{entry.file_size:x}-{entry.CRC:08x}"

    def checksum(self, name: str) -> str:
        return self.signature(name)

    def _check_readable(self) -> None:
        """Refuses an archive none of whose members can be read in place."""
        reasons = [_unreadable(entry) for entry in self._entries.values() if entry.file_size]
        if reasons and all(reasons):
            raise InputError(
                f"{self.where}: all its {len(reasons)} files are {excerpt(sorted(set(reasons)))}. "
                "Unpack the archive and give the folder."
            )

    def _stored_bytes(self, name: str, entry: zipfile.ZipInfo) -> bytes:
        if entry.header_offset + entry.compress_size > self._size:
            raise self._damaged(name, "it reaches beyond the archive's end")
        guess = _LOCAL_HEADER + len(entry.filename.encode()) + _EXTRA_GUESS + entry.compress_size
        block = self._pread(name, guess, entry.header_offset)
        if len(block) < _LOCAL_HEADER or block[:4] != b"PK\x03\x04":
            raise self._damaged(name, "its header is missing")
        name_length, extra_length = struct.unpack_from("<HH", block, 26)
        start = _LOCAL_HEADER + name_length + extra_length
        if start + entry.compress_size > guess:
            return self._pread(name, entry.compress_size, entry.header_offset + start)
        return block[start : start + entry.compress_size]

    def _pread(self, name: str, count: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise FileError(f"{self.where}: {name} cannot be read: {error.strerror or error}.") from error

    def _damaged(self, name: str, why: str) -> FileError:
        return FileError(f"{self.where}: {name} is damaged ({why}). Download the archive again.")

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_descriptor"}

    def __setstate__(self, state: dict):
        self.__dict__.update(state)
        self._descriptor = os.open(self.where, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def open_files(directory: str, stem: str = "images") -> Files:
    """The pictures of a data set: `directory/stem/`, else `directory/stem.zip`, else the directory itself.

    Where the directory does not exist but `directory.zip` does, or where `directory` is a zip archive, the
    archive is read.

    Raises:
      InputError: there is nothing at that place, or a file that is no readable zip archive.
    """
    directory = str(directory)
    if os.path.isdir(os.path.join(directory, stem)):
        return Folder(os.path.join(directory, stem))
    for archive in (os.path.join(directory, f"{stem}.zip"), f"{directory.rstrip('/')}.zip"):
        if os.path.isfile(archive) and (
            not os.path.isdir(directory) or os.path.dirname(archive) == directory.rstrip("/")
        ):
            return Archive(archive)
    if os.path.isfile(directory):
        if not directory.lower().endswith(".zip") and not zipfile.is_zipfile(directory):
            raise InputError(
                f"{directory} is neither a folder nor a zip archive. Unpack an archive of another kind, such as "
                ".tar.gz, and give the folder."
            )
        return Archive(directory)
    if os.path.isdir(directory):
        return Folder(directory)
    raise _missing(directory)


def find_directory(name: str, directory: str | None = None) -> str:
    """Where the data set `name` lies: `directory` where it is given, else `$EMOKD_DATA/<name>`.

    The place may also be a zip archive, named with or without its suffix.

    Raises:
      InputError: neither is given, or there is nothing at that place.
    """
    if directory:
        place = os.path.expanduser(str(directory))
    elif os.environ.get("EMOKD_DATA"):
        place = os.path.join(os.path.expanduser(os.environ["EMOKD_DATA"]), name)
    else:
        raise InputError(
            f"The data set {name!r} has no place: set --config.data.dir to its folder, or the environment variable "
            f"EMOKD_DATA to a folder that holds {name}/."
        )
    if os.path.exists(place) or os.path.isfile(f"{place}.zip"):
        return place
    raise _missing(place, name)


def _missing(place: str, name: str | None = None) -> InputError:
    what = f"The data set {name!r}" if name else "The data set"
    return InputError(
        f"{what} is not at {os.path.abspath(place)}. Set --config.data.dir to its folder, or the environment variable "
        f"EMOKD_DATA to a folder that holds {f'{name}/' if name else 'it'}."
    )


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """An entry's name with forward slashes and none in front, as unzip makes it.

    It is decoded as UTF-8 also without zip's UTF-8 flag, as in a Mac's archives.
    """
    name = entry.filename
    if not name.isascii() and not entry.flag_bits & _UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/").removeprefix("./").lstrip("/")


def _unreadable(entry: zipfile.ZipInfo) -> str:
    """Why a member cannot be read in place; empty where it can."""
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {entry.compress_type}, where only stored and deflated files are read in place"
    return ""


def _special_entry(entry: zipfile.ZipInfo) -> bool:
    """Whether a member is a link or another special file; archives made on Windows do not record that."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return entry.create_system == _UNIX and kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def _tell(where: str, listing: Listing) -> None:
    if listing.special or listing.unlisted or listing.outside:
        logging.warning("%s: left out: %s.", where, listing.left_out())
    elif listing.hidden:
        logging.info("%s: left out: %s.", where, listing.left_out())
