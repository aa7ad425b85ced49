"""Finds the configuration files that a command line, a stored run or another configuration names."""

import contextlib
import contextvars
import pathlib
from collections.abc import Iterable, Iterator

from emokd.errors import nearest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
HOME = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The folder that has emokd's own `configs`: the installed package, or in a checkout the folder of the package."""

PREFIX = "emokd:"
"""What the name of one of emokd's own configurations begins with, as in "emokd:smkd/folder"."""

_running: contextvars.ContextVar[pathlib.Path | None] = contextvars.ContextVar("running", default=None)


@contextlib.contextmanager
def running(file: pathlib.Path) -> Iterator[None]:
    """Marks `file` as the configuration that is being run: what it names is looked for beside it, see `find`."""
    token = _running.set(file)
    try:
        yield
    finally:
        _running.reset(token)


def parse(reference: str) -> tuple[str, str | None]:
    """The file that a reference names, as `find` takes it, and its argument, or None where it has none.

    Args:
      reference: "configs/smkd/fi.py", "configs/smkd/fi.py:small", "emokd:smkd/fi" or "emokd:smkd/fi:small".
    """
    prefix = PREFIX if reference.startswith(PREFIX) else ""
    path, colon, argument = reference.removeprefix(prefix).partition(":")
    return prefix + path, argument if colon else None


def find(path: str) -> pathlib.Path | None:
    """The whole path of a configuration file, or None where there is none.

    "emokd:NAME" is `configs/NAME.py` of the checkout or the installation, whatever lies in the working directory. A
    relative path that a configuration names while it is run is looked for in that file's folder and in those above it;
    then, as any other, in the working directory and in the folder that has emokd's own `configs`. So configurations
    find each other from any working directory, and "configs/smkd/fi.py" is found everywhere.
    """
    if path.startswith(PREFIX):
        return own_configurations().get(path.removesuffix(".py"))
    beside = _running.get()
    folders = [*(beside.parents if beside else ()), pathlib.Path.cwd(), HOME]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def anchor(reference: str) -> str:
    """Rewrites a reference so that it names the same file, by the same text, from any working directory.

    Args:
      reference: as `parse` takes it.

    Returns:
      The path from `HOME` for one of emokd's own, such as "configs/smkd/fi.py:small", so that runs may move between
      checkouts and installations; else the whole path. A file that is not there stays as it is: whoever loads it says
      so.
    """
    path, argument = parse(reference)
    found = find(path)
    if found is None:
        return reference
    found = found.resolve()
    short = found.relative_to(HOME) if found.is_relative_to(HOME) else found
    return short.as_posix() if argument is None else f"{short.as_posix()}:{argument}"


def own_configurations() -> dict[str, pathlib.Path]:
    """The files of emokd's own configurations by name, such as "emokd:smkd/fi", sorted."""
    folder = HOME / "configs"
    files = sorted(folder.rglob("*.py"))
    return {f"{PREFIX}{file.relative_to(folder).with_suffix('').as_posix()}": file for file in files}


def absent(path: str) -> str:
    """The message for a configuration file that does not exist: who names it, and the nearest that exists."""
    beside = _running.get()
    named = f", which {beside} names" if beside else ""
    own = own_configurations()
    if path.startswith(PREFIX):
        hint = nearest(path, own) or f" There are {', '.join(own)}."
        return f"emokd has no configuration {path!r}{named}.{hint}"
    if (name := PREFIX + path.removesuffix(".py")) in own:
        hint = f" Did you mean {name!r}?"
    else:
        hint = nearest(path, _known(pathlib.Path(path).parent)) or (
            f" Give its path from the working directory, the whole path, or one of emokd's own as {PREFIX}NAME "
            "(--list_configs names them)."
        )
    return f"There is no configuration file {path!r}{named}.{hint}"


def _known(folder: pathlib.Path) -> Iterable[str]:
    """The files in a folder or, where there is no such folder, emokd's own."""
    if folder.is_dir():
        return [str(file) for file in sorted(folder.rglob("*.py"))]
    return [str(file.relative_to(HOME)) for file in own_configurations().values()]
