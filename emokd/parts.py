"""The parts of a step: labels on its operations, by which profiles and the benchmark tell them apart."""

import re
from contextlib import AbstractContextManager

import jax

AUGMENTATION, OPTIMISER = "augmentation", "optimiser"

_NAME = re.compile(r"part\.([^/()]+)")


def part(name: str) -> AbstractContextManager:
    """Labels the operations traced in this context, and their gradients, for profiling. The outermost label wins."""
    return jax.named_scope(f"part.{name}")


def part_of(name_stack: str) -> str | None:
    """The part whose label is the outermost in an operation's name stack, or None."""
    found = _NAME.search(name_stack)
    return found[1] if found else None
