"""Measures the device's peak rates: floating-point operations per second, and bytes moved per second."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from emokd.benchmarking.timing import Clock, Rule, interleave

SIDE, CPU_SIDE = 8192, 2048
"""Sides of the square matrices: large enough that the product's launch overhead is negligible."""

BYTES, CPU_BYTES = 2**30, 2**28
"""Sizes of the copied array, bytes: larger than the caches."""


def measure_peak(
    rule: Rule, dtype: str, *, side: int = 0, size_bytes: int = 0, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Times a matrix product at the default precision, and a copy of float32, on one device.

    The copy adds 1 to every number, because a plain copy may be compiled away: it reads and writes every byte once.

    Args:
      rule: warm-up and rounds.
      dtype: of the matrices, by name; the one that the networks compute in.
      side: of the square matrices; 0 for `SIDE`, on CPU `CPU_SIDE`.
      size_bytes: of the copied array; 0 for `BYTES`, on CPU `CPU_BYTES`.
      clock: returns seconds.

    Returns:
      "matmul_flops" per second (2 side^3 in the median time), "copy_bytes" per second (read and written), and the
      "dtype", "side" and "size_bytes" that they were measured at.
    """
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    side = side or (CPU_SIDE if on_cpu else SIDE)
    count = (size_bytes or (CPU_BYTES if on_cpu else BYTES)) // 4
    with jax.default_device(device):
        a, b = jax.random.normal(jax.random.key(0), (2, side, side), jnp.dtype(dtype))
        x = jnp.zeros(count, jnp.float32)
        matmul, copy = jax.jit(jnp.matmul).lower(a, b).compile(), jax.jit(lambda x: x + 1).lower(x).compile()
        times = interleave({"matmul": lambda: matmul(a, b), "copy": lambda: copy(x)}, rule, clock)
    return {
        "matmul_flops": 2 * side**3 / times["matmul"].median,
        "copy_bytes": 2 * x.nbytes / times["copy"].median,
        "dtype": dtype,
        "side": side,
        "size_bytes": x.nbytes,
    }
