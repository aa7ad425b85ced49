"""Recipes: what is taught, in which phases. A new method is one new file with a `build` function here.

What several recipes need is in `common`, one idea a file.
"""

import importlib
import pkgutil
from types import ModuleType

from emokd.errors import InputError, nearest


def find(name: str) -> ModuleType:
    """The recipe module called `name`, the one that `config.recipe` says."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    if name not in known:
        raise InputError(f"config.recipe is {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    return importlib.import_module(f"{__name__}.{name}")
