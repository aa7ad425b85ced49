"""Recipes: what is taught, in which phases. A new method is one new file with a `build` function here.

What several recipes need is in `common`, one idea a file.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

import ml_collections

from emokd import imports
from emokd.configuration import defaults
from emokd.errors import InputError, nearest
from emokd.phase import Recipe


@dataclasses.dataclass(frozen=True)
class Method:
    """A recipe's two functions.

    Attributes:
      build: makes the recipe of (configuration, `common.task.Task`, models read from files by name).
      default_config: its configuration with every key at its default.
      uses_teachers: whether a configuration's run asks any of `config.teachers`; those that nobody asks are not read.
    """

    build: Callable[..., Recipe]
    default_config: Callable[[], ml_collections.ConfigDict]
    uses_teachers: Callable[[ml_collections.ConfigDict], bool]


def find(name: str) -> Method:
    """Finds a recipe by its name in `config.recipe`, or by the import path of a user's own: "package.module:build".

    A user's recipe has the defaults of `default_config` in its module, where there is one, else those of every run.

    Raises:
      InputError: there is no such recipe; the nearest is named.
    """
    if imports.is_path(name):
        build = imports.load(name, "config.recipe")
        module = importlib.import_module(name.partition(":")[0])
        return Method(build, getattr(module, "default_config", lambda: defaults.run(name)), _uses_teachers(module))
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    if name not in names:
        raise InputError(f"config.recipe is {name!r}.{nearest(str(name), names)} Known: {', '.join(names)}.")
    module = importlib.import_module(f"{__name__}.{name}")
    return Method(module.build, module.default_config, _uses_teachers(module))


def _uses_teachers(module: ModuleType) -> Callable[[ml_collections.ConfigDict], bool]:
    """What the module says; a recipe that does not say uses its teachers."""
    return getattr(module, "uses_teachers", lambda config: True)
