"""Imports users' own functions and classes by import path: "package.module:function".

Only paths that the user named are imported, so that a folder from elsewhere (a run's configuration, a model's
specification) cannot run code that its reader did not ask for. Configuration files, the command line and callers of
Python functions speak for the user; what is read from a run's or a model's folder does not.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

from emokd.errors import InputError, nearest

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_trusted: set[str] = set()


def is_path(name: object) -> bool:
    """Whether a name has the form of an import path."""
    return isinstance(name, str) and _PATH.fullmatch(name) is not None


def trust(values: Any) -> None:
    """Allows the import of all import paths among values that the user gave.

    Args:
      values: a text, or mappings, lists and tuples of any depth.
    """
    if is_path(values):
        _trusted.add(values)
    elif hasattr(values, "values"):  # not isinstance: a ConfigDict is no Mapping
        trust(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            trust(value)


def load(path: str, what: str) -> Callable[..., Any]:
    """Imports the function or class that an import path names.

    Modules are searched as in any Python program: in the working directory of a command, and among installed packages.

    Args:
      path: "package.module:function".
      what: the setting that names it, for messages, such as "config.student.backbone".

    Raises:
      InputError: the user has not named the path, there is no such module or function, or it cannot be called.
    """
    if path not in _trusted:
        raise InputError(
            f"{what} is {path!r}, code of somebody's own that is read from a folder and that nothing in this command "
            f"names. If you trust the module, say --trust={path}, or in Python emokd.imports.trust({path!r})."
        )
    name, attribute = path.split(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        raise InputError(
            f"{what} is {path!r}, but there is no module {error.name!r}. Start the command in the folder that has it, "
            "set PYTHONPATH, or install its package."
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{what} is {path!r}, but {name} has no {attribute!r}.{nearest(attribute, vars(module))}")
    if not callable(found):
        raise InputError(f"{what} is {path!r}, which is {type(found).__name__}, no function or class.")
    return found
