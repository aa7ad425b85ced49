"""How much work a traced function has, for tests of what costs nothing."""

from collections.abc import Callable

import jax

from emokd.benchmarking.program import live
from emokd.models.macs import count_macs_of


def count_live_macs(function: Callable, *args) -> int:
    """Multiply-accumulates of `function(*args)` over all devices, without those whose result nobody uses.

    XLA leaves such work out: the heads of a teacher whose features alone are imitated, for instance.
    """
    return count_macs_of(live(jax.make_jaxpr(function)(*args).jaxpr))
