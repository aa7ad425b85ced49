"""Devices that need not be here: TPUs of a topology, for which their own compiler compiles on any machine."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from emokd.benchmarking.chips import CHIPS, Chip
from emokd.errors import InputError, nearest

EXAMPLES = ("v2:2x2", "v3:4x4", "v4:2x2x1", "v5e:2x2", "v5e:16x16", "v5p:4x4x4", "v6e:2x4")

_NAME = re.compile(r"(?P<kind>\w+):(?P<shape>\d+(x\d+){1,2})")
# The compiler looks for the machine's own TPUs, of which there are none, and locks them against other processes.
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A slice of TPUs.

    Attributes:
      name: such as "v5e:16x16".
      chip: one of its devices.
      shape: chips along each axis of the torus.
      devices: all of them; programs can be compiled for them, not run.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    devices: Sequence[jax.Device]


def find_target(name: str) -> Target:
    """The slice of this name.

    Call it before anything runs on JAX: from then on this process computes on the CPU, and leaves TPUs alone.

    Raises:
      InputError: the name is malformed or unknown, or the compiler is not installed.
    """
    kind, shape = _parse(name)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--target={name} needs the TPU's compiler, which is not installed: pip install 'emokd[tpu_compile]', or, "
            "in a checkout, pip install -e '.[tpu_compile]'."
        )
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        devices = topologies.get_topology_desc(topology_name=name, platform="tpu").devices
    except (RuntimeError, ValueError) as error:  # JaxRuntimeError is a RuntimeError
        reason = " ".join(str(error).split())
        raise InputError(
            f"--target={name}: the TPU's compiler knows no such slice ({reason[:200]}). Some that it knows: "
            f"{', '.join(EXAMPLES)}; for one chip give --config.devices=1 as well."
        ) from error
    return Target(name, CHIPS[kind], shape, devices)


def _parse(name: str) -> tuple[str, tuple[int, ...]]:
    match = _NAME.fullmatch(name)
    kind = match["kind"] if match else name.split(":")[0]
    if kind not in CHIPS:
        raise InputError(
            f"--target={name}: there is no TPU {kind!r}.{nearest(kind, CHIPS)} Known: {', '.join(CHIPS)}; write one "
            f"with its topology, such as {EXAMPLES[3]}."
        )
    if match is None:
        raise InputError(f"--target={name} is no TPU with its topology. Some: {', '.join(EXAMPLES)}.")
    shape = tuple(map(int, match["shape"].split("x")))
    if not math.prod(shape):
        raise InputError(f"--target={name} has no chip. Some that have: {', '.join(EXAMPLES)}.")
    return kind, shape
