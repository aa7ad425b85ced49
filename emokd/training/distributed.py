"""Several processes as one run: they find each other by environment variables and join through `jax.distributed`.

EMOKD_COORDINATOR=HOST:PORT, EMOKD_PROCESSES=N and EMOKD_PROCESS=I name the processes explicitly: process 0 listens at
the address, and the others connect to it. EMOKD_DISTRIBUTED=auto lets JAX detect them, under Slurm, Open MPI or on TPU
pods. Without any of these variables a process runs alone.
"""

import dataclasses
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from emokd.errors import InputError, nearest

EXPLICIT = ("EMOKD_COORDINATOR", "EMOKD_PROCESSES", "EMOKD_PROCESS")
MODE = "EMOKD_DISTRIBUTED"
JOIN_SECONDS = 300
"""How long a process waits for the others when it starts."""
LEAVE_SECONDS = 60
"""How long a process waits for the others when it ends; if it ends by an error, they may never come."""
HEARTBEAT_SECONDS = 50
"""After how long without a sign of life JAX ends the other processes, where `peers` has not noticed before."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that make up a run.

    Attributes:
      coordinator: "host:port" of process 0.
      count: how many processes.
      index: which of them this is, from 0.
    """

    coordinator: str
    count: int
    index: int


def requested(environment: Mapping[str, str]) -> Processes | Literal["auto"] | None:
    """Reads the environment variables; None means one process alone. A variable that is empty counts as unset.

    Returns:
      The processes; "auto" to let JAX find them; or None.

    Raises:
      InputError: a variable is missing, no number or out of range, or both the explicit variables and auto are set.
    """
    variables = {name: environment[name] for name in EXPLICIT if environment.get(name)}
    mode = environment.get(MODE, "")
    if mode and mode != "auto":
        raise InputError(f"{MODE} is {mode!r}; set it to 'auto', or unset it.{nearest(mode, ['auto'])}")
    if mode and variables:
        raise InputError(f"{MODE}=auto and {', '.join(variables)} are both set; unset the one or the others.")
    if mode:
        return "auto"
    if not variables:
        return None
    missing = [name for name in EXPLICIT if name not in variables]
    if missing:
        raise InputError(
            f"{', '.join(variables)} is set, but not {', '.join(missing)}; set all of {', '.join(EXPLICIT)}."
        )
    host, _, port = variables["EMOKD_COORDINATOR"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"EMOKD_COORDINATOR is {variables['EMOKD_COORDINATOR']!r}; give HOST:PORT of process 0.")
    for name in EXPLICIT[1:]:
        if not variables[name].isdecimal():
            raise InputError(f"{name} is {variables[name]!r}; give a whole number.")
    count, index = int(variables["EMOKD_PROCESSES"]), int(variables["EMOKD_PROCESS"])
    if index >= count:
        raise InputError(f"EMOKD_PROCESS is {index}, but EMOKD_PROCESSES is {count}; number them from 0.")
    return Processes(variables["EMOKD_COORDINATOR"], count, index)


def initialize(processes: Processes | Literal["auto"], join_seconds: int = JOIN_SECONDS) -> int:
    """Joins the processes. Must come before anything that starts JAX's backend.

    JAX's preemption service is off: it would swallow the first SIGTERM, also where no run is under way, and knows no
    Ctrl-C. `emokd.training.stopping` does its work.

    Returns:
      Which process this is.

    Raises:
      InputError: JAX finds no cluster; process 0 cannot listen, or does not within `join_seconds`.
    """
    if isinstance(processes, Processes):
        _check_address(processes, join_seconds)
    import jax  # here and below, because commands without JAX import this module for `requested`

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)
    seconds: dict[str, Any] = {
        "initialization_timeout": join_seconds,
        "shutdown_timeout_seconds": LEAVE_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if not isinstance(processes, Processes):
        try:
            jax.distributed.initialize(**seconds)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            raise InputError(
                f"{MODE}=auto, but JAX could not join the processes of a Slurm job, an Open MPI job or a TPU pod "
                f"({_first_line(error)}). Start inside one, or set {', '.join(EXPLICIT)}."
            ) from error
        return jax.process_index()
    jax.distributed.initialize(
        processes.coordinator, processes.count, processes.index, cluster_detection_method="deactivate", **seconds
    )
    return processes.index


def _check_address(processes: Processes, join_seconds: int) -> None:
    """Waits until process 0 listens, or, in process 0, checks that it can: JAX would abort without a message."""
    host, _, port = processes.coordinator.rpartition(":")
    if processes.index == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise InputError(f"Process 0 cannot listen at port {port} ({error}); choose another one.") from error
        return
    end = time.monotonic() + join_seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f"Process {processes.index} of {processes.count} found nobody at {processes.coordinator} within "
                    f"{join_seconds} seconds ({error}). Start process 0 too, and give an address of it that all reach."
                ) from error
        time.sleep(0.2)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def together(name: str) -> None:
    """A barrier: returns when every process has reached it; at once where there is one process.

    Args:
      name: of the barrier, the same in every process.
    """
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agreed(decision: bool) -> bool:
    """Process 0's decision, in every process."""
    import jax

    if jax.process_count() == 1:
        return decision
    from jax.experimental import multihost_utils

    with jax.transfer_guard("allow"):
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(decision)))


def in_first_process(action: Callable[[], None]) -> None:
    """Runs `action` in process 0 alone; an InputError there stops every process.

    Raises:
      InputError: in process 0 that of `action`; elsewhere one that refers to it.
    """
    import jax

    refused = None
    if jax.process_index() == 0:
        try:
            action()
        except InputError as error:
            refused = error
    if not agreed(refused is None):
        raise refused or InputError("Process 0 was refused; its own message says why.")
