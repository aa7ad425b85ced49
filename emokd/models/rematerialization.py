"""Blocks whose activations are computed again in the backward pass instead of being kept for it.

Then memory grows with one value per block, its input, in place of every layer's. A forward pass more is the price.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

from flax import nnx
from jaxtyping import Array

_ON = contextvars.ContextVar("rematerialization", default=False)


@contextlib.contextmanager
def rematerialization(on: bool) -> Iterator[None]:
    """Within this context blocks are traced so that the backward pass computes their activations again, if `on`."""
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


def rematerializable(function: Callable[..., Array]) -> Callable[..., Array]:
    """Marks a function of modules and arrays, such as a module's `__call__`, as a block."""
    again = nnx.remat(function)

    @functools.wraps(function)
    def call(*args):
        return (again if _ON.get() else function)(*args)

    return call
