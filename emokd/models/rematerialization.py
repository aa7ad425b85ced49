"""Rematerialisation: the backward pass recomputes the activations inside blocks instead of storing them.

Only each block's input is stored, not the output of every layer. It costs one more forward pass.
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
    """Within this context, if `on`, blocks are traced so that the backward pass recomputes their activations."""
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
