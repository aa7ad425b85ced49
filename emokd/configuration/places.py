"""Where a configuration file lies that another one, a command line or a stored run names."""

import contextlib
import contextvars
import pathlib
from collections.abc import Iterable, Iterator

from emokd.errors import nearest

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
"""The folder that has the package and, in a checkout, `configs`."""

_running: contextvars.ContextVar[pathlib.Path | None] = contextvars.ContextVar("running", default=None)


@contextlib.contextmanager
def running(file: pathlib.Path) -> Iterator[None]:
    """Makes `file` the configuration that names others, while it is run."""
    token = _running.set(file)
    try:
        yield
    finally:
        _running.reset(token)


def find(path: str) -> pathlib.Path | None:
    """The whole path of a configuration file, or None where there is none.

    A relative path that a configuration names while it is run is looked for in that file's folder and in those above
    it; then, as any other, in the working directory and in the checkout. So configurations find each other from
    wherever they are started.
    """
    beside = _running.get()
    folders = [*(beside.parents if beside else ()), pathlib.Path.cwd(), CHECKOUT]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def anchor(reference: str) -> str:
    """A reference that means the same file from any working directory, and is the same text whichever it came from.

    Args:
      reference: a path, or a path and an argument as in "configs/smkd/fi.py:small".

    Returns:
      The path from the checkout where the file lies in it, so that runs may move to another one, else the whole path.
      A file that is not there stays as it is: whoever loads it says so.
    """
    path, colon, argument = reference.partition(":")
    found = find(path)
    if found is None:
        return reference
    found = found.resolve()
    short = found.relative_to(CHECKOUT) if found.is_relative_to(CHECKOUT) else found
    return f"{short.as_posix()}{colon}{argument}"


def absent(path: str) -> str:
    """The message for a configuration file that is nowhere: who names it, and the nearest that there is."""
    beside = _running.get()
    named = f", which {beside} names" if beside else ""
    hint = nearest(path, _known(pathlib.Path(path).parent)) or (
        " Give its path from the working directory, or the whole path."
    )
    return f"There is no configuration file {path!r}{named}.{hint}"


def _known(folder: pathlib.Path) -> Iterable[str]:
    """The files in a folder or, where there is no such folder, the project's."""
    if folder.is_dir():
        return [str(file) for file in sorted(folder.rglob("*.py"))]
    return [str(file.relative_to(CHECKOUT)) for file in sorted((CHECKOUT / "configs").rglob("*.py"))]
