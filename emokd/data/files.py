"""Files of a data set, read in place from a folder or a zip archive, by many threads at once."""

import collections
import contextlib
import hashlib
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

from emokd.errors import InputError
from emokd.names import normal_path

PICTURE_SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".avif",
    )
)

_LOCAL_HEADER = 30
_EXTRA_GUESS = 64
_ENCRYPTED = 0x1
_UTF8 = 0x800


class Files:
    """A fixed set of named files. Names are relative, with forward slashes.

    Reading is thread-safe and needs no lock; objects pickle without their open handles, so worker processes
    open their own. Hidden files and the leftovers of file managers are not listed.

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
          InputError: there is no such file, or it cannot be read.
        """
        raise NotImplementedError

    def signature(self, name: str) -> str:
        """Something cheap that is equal for files of equal bytes, and often differs where the bytes do."""
        raise NotImplementedError

    def find(self, path: str) -> str | None:
        """The name of the file that a table calls `path`, or None.

        Accepts another Unicode form, backslashes, `./` and `//` in it, and paths that repeat the folder's or archive's
        own name.

        Raises:
          InputError: two files have that name in different Unicode forms, neither in the form asked for.
        """
        known = self._by_normal_path()
        path = path.strip()
        own = normal_path(pathlib.Path(self.where).stem) + "/"
        for candidate in (normal_path(path), normal_path(path).removeprefix(own)):
            found = known.get(candidate, ())
            if len(found) > 1 and path in found:
                return path
            if len(found) > 1:
                raise InputError(
                    f"{self.where}: {len(found)} files are called {candidate!r}, in different Unicode forms: "
                    f"{', '.join(map(ascii, found))}. Rename all but one."
                )
            if found:
                return found[0]
        return None

    def pictures(self) -> list[str]:
        """The names of the files that look like pictures by their suffix."""
        return [name for name in self.names if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES]

    def contents(self, names: Sequence[str]) -> Callable[[int], str]:
        """A function of i that gives equal texts for files `names[i]` of equal bytes, and for no others.

        A file whose cheap signature (size; in an archive also the checksum) is unique among `names` is not
        read; the others are hashed, each once. The texts compare within this data set, not across data sets.
        """
        count = collections.Counter(self.signature(name) for name in names)

        known: dict[int, str] = {}  # asked for by the search for duplicates, then by a teacher cache's key

        def content(i: int) -> str:
            if i not in known:
                signature = self.signature(names[i])
                if count[signature] > 1:
                    signature += f"-{hashlib.blake2b(self.read(names[i]), digest_size=16).hexdigest()}"
                known[i] = signature
            return known[i]

        return content

    def _by_normal_path(self) -> Mapping[str, Sequence[str]]:
        """The files of each path in normal form: one, but for names that differ in their Unicode form alone."""
        if not hasattr(self, "_known"):
            known = collections.defaultdict(list)
            for name in self.names:
                known[normal_path(name)].append(name)
            self._known = dict(known)
        return self._known


class Folder(Files):
    """Files under a folder; links are followed, each real folder once."""

    def __init__(self, path: str):
        self.where = str(path)
        names, directories, visited = [], [], set()
        for parent, folders, files in os.walk(self.where, followlinks=True):
            real = os.path.realpath(parent)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = [folder for folder in folders if not _hidden(folder)]
            relative = os.path.relpath(parent, self.where).replace(os.sep, "/")
            prefix = "" if relative == "." else relative + "/"
            names += [prefix + file for file in files if not _hidden(file)]
            directories += [prefix + folder for folder in folders]
        self.names = sorted(names)
        self.directories = sorted(directories)

    def read(self, name: str) -> bytes:
        path = os.path.join(self.where, name)
        try:
            return pathlib.Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}. Restore the file.") from error

    def signature(self, name: str) -> str:
        path = os.path.join(self.where, name)
        try:
            return f"{os.stat(path).st_size:x}"
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}. Restore the file.") from error


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
        visible = [(name, entry) for name, entry in named if not any(_hidden(part) for part in name.split("/") if part)]
        if visible and all(normal_path(name + "x").startswith(top) for name, _ in visible):
            visible = [(name.partition("/")[2], entry) for name, entry in visible]
        self._entries: Mapping[str, zipfile.ZipInfo] = {
            name: entry for name, entry in visible if name and not name.endswith("/")
        }
        self.names = sorted(self._entries)
        parents = {name.rstrip("/") for name, _ in visible if name.endswith("/")}
        for name in self.names:
            parts = name.split("/")[:-1]
            parents |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
        self.directories = sorted(parents - {""})
        self._descriptor = os.open(self.where, os.O_RDONLY)

    def read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(f"{self.where} holds no file {name!r}. Check the table that names it.")
        if entry.flag_bits & _ENCRYPTED:
            raise InputError(f"{self.where}: {name} is encrypted. Unpack the archive and give the folder.")
        if entry.compress_type == zipfile.ZIP_STORED:
            data = self._stored_bytes(entry)
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompress(self._stored_bytes(entry), -zlib.MAX_WBITS, entry.file_size or 1)
            except zlib.error as error:
                raise self._damaged(name, str(error)) from error
        else:
            raise InputError(
                f"{self.where}: {name} is compressed by method {entry.compress_type}; only stored and deflated "
                "files are read in place. Unpack the archive and give the folder."
            )
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise self._damaged(name, "its checksum does not match")
        return data

    def signature(self, name: str) -> str:
        entry = self._entries[name]
        return f"{entry.file_size:x}-{entry.CRC:08x}"

    def _stored_bytes(self, entry: zipfile.ZipInfo) -> bytes:
        guess = _LOCAL_HEADER + len(entry.filename.encode()) + _EXTRA_GUESS + entry.compress_size
        block = os.pread(self._descriptor, guess, entry.header_offset)
        if len(block) < _LOCAL_HEADER or block[:4] != b"PK\x03\x04":
            raise self._damaged(entry.filename, "its header is missing")
        name_length, extra_length = struct.unpack_from("<HH", block, 26)
        start = _LOCAL_HEADER + name_length + extra_length
        if start + entry.compress_size > guess:
            return os.pread(self._descriptor, entry.compress_size, entry.header_offset + start)
        return block[start : start + entry.compress_size]

    def _damaged(self, name: str, why: str) -> InputError:
        return InputError(f"{self.where}: {name} is damaged ({why}). Download the archive again.")

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
      InputError: there is nothing at that place.
    """
    directory = str(directory)
    if os.path.isdir(os.path.join(directory, stem)):
        return Folder(os.path.join(directory, stem))
    for archive in (os.path.join(directory, f"{stem}.zip"), f"{directory.rstrip('/')}.zip"):
        if os.path.isfile(archive) and (
            not os.path.isdir(directory) or os.path.dirname(archive) == directory.rstrip("/")
        ):
            return Archive(archive)
    if os.path.isfile(directory) and zipfile.is_zipfile(directory):
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


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """An entry's name with forward slashes; as UTF-8 where it is that without saying so, as in a Mac's archives."""
    name = entry.filename
    if not name.isascii() and not entry.flag_bits & _UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/").removeprefix("./")
