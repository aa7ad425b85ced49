"""The parts of a step: names that its operations carry into profiles, and by which the benchmark takes them out."""

import re
from contextlib import AbstractContextManager

import jax

AUGMENTATION, OPTIMISER = "augmentation", "optimiser"

_NAME = re.compile(r"part\.([^/()]+)")


def part(name: str) -> AbstractContextManager:
    """What is traced in this context belongs to this part, with its backward pass; of nested parts the outer counts."""
    return jax.named_scope(f"part.{name}")


def part_of(name_stack: str) -> str | None:
    """The part that an operation with this name stack belongs to, or None."""
    found = _NAME.search(name_stack)
    return found[1] if found else None
