"""Names for the parts of a step; profiles show them, and the benchmark measures each part by its name."""

import re
from contextlib import AbstractContextManager

import jax

AUGMENTATION, OPTIMISER = "augmentation", "optimiser"

_NAME = re.compile(r"part\.([^/()]+)")


def part(name: str) -> AbstractContextManager:
    """Labels the operations that are traced in this context, and their gradients. The outermost label wins."""
    return jax.named_scope(f"part.{name}")


def part_of(name_stack: str) -> str | None:
    """The outermost part in an operation's name stack, or None."""
    found = _NAME.search(name_stack)
    return found[1] if found else None
