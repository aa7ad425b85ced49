"""Recipes: what is taught, in which phases. A new method is one new file with a `build` function here."""

import importlib
import pkgutil
from types import ModuleType

from emokd.errors import InputError, nearest

SHARED = ("classification", "common", "imitation", "modalities", "relations", "standardize")
"""What recipes have in common; no recipes themselves."""


def find(name: str) -> ModuleType:
    """The recipe module called `name`, the one that `config.recipe` says."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)
    if name not in known:
        raise InputError(f"config.recipe is {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    return importlib.import_module(f"{__name__}.{name}")
