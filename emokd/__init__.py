"""emokd: small, fast emotion-recognition models taught by several large ones, in JAX.

import emokd

student = emokd.load("runs/quickstart")
answer = student("face.jpg")
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emokd.errors import InputError
    from emokd.inference.answer import Answer
    from emokd.inference.loading import load
    from emokd.inference.student import Student

__version__ = "0.1.0.dev0"
__all__ = ["Answer", "InputError", "Student", "load"]

# ONNX Runtime reports its use to its makers, and keeps an identifier in the home directory, unless it is told not to
# before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported at first access (PEP 562): JAX takes seconds to import, and not every user of the package needs it.
_PLACES = {
    "Answer": "emokd.inference.answer",
    "InputError": "emokd.errors",
    "Student": "emokd.inference.student",
    "load": "emokd.inference.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'emokd' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
