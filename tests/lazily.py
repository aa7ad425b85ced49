"""Modules that take seconds to import: PyTorch, transformers, GeomLoss, scikit-learn. See `Lazily`."""

import importlib
from typing import Any


class Lazily:
    """A module that is imported when a test first uses it, not when the tests are collected.

    Args:
      name: the module's full name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
