"""The devices: a mesh with the axes `data` and `fsdp`, and batches split over both of them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from emokd.errors import InputError

AXES = ("data", "fsdp")
"""Batches are split over both axes, so that devices along `fsdp` repeat no work; parameters over `fsdp`, by rules."""

# Up to this size, as of features or labels, `_hand_over` pays; of pictures its extra copy costs more than it saves.
_SMALL_BYTES = 2**20


def create_mesh(devices: int = 0, data: int = 0, fsdp: int = 1, among: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the axes `data` and `fsdp` over the first `devices` devices of all processes (0 for all).

    Args:
      devices: how many devices; 0 for all.
      data: devices along `data`; 0 for what `fsdp` leaves.
      fsdp: devices along `fsdp`, which share the arrays that `placement` splits; 0 for what `data` leaves.
      among: the devices to choose from; None for all that there are.

    Raises:
      InputError: there are fewer devices than `devices`; `devices` leaves out some while there are several processes;
        or the product of the two axes is not the number of devices.
    """
    chosen = jax.devices() if among is None else among
    available = len(chosen)
    if devices > available:
        raise InputError(
            f"config.devices is {devices}, but there are {available} devices: give --config.devices=0, which is all of "
            "them. A run may be continued on other devices."
        )
    count = devices or available
    if count < available and jax.process_count() > 1:
        raise InputError(
            f"config.devices is {devices}, but {jax.process_count()} processes share all of their {available} devices; "
            "give --config.devices=0, or start fewer processes."
        )
    shape = (data or count // max(fsdp, 1), fsdp or count // max(data, 1))
    if min(data, fsdp) < 0 or data == fsdp == 0 or math.prod(shape) != count:
        raise InputError(
            f"config.mesh is data={data} and fsdp={fsdp}, which does not make up {count} devices; set config.mesh.data "
            f"to 0 and config.mesh.fsdp to a divisor of {count}, or config.devices to the number that you want."
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=chosen[:count])


def create_local_mesh(devices: int = 0) -> Mesh:
    """The mesh over this process's devices alone: for work that processes divide without exchanging arrays.

    Raises:
      InputError: as `create_mesh`.
    """
    if jax.process_count() == 1:
        return create_mesh(devices)
    create_mesh(devices)  # raises for the same values of `devices`
    return jax.make_mesh(
        (jax.local_device_count(), 1), AXES, axis_types=(AxisType.Auto,) * 2, devices=jax.local_devices()
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises InputError where a (micro)batch does not divide over the mesh; it is never silently replicated."""
    parts = mesh.size * microbatches
    if batch_size % parts:
        lower = max(batch_size - batch_size % parts, parts)
        split = f" in {microbatches} microbatches" if microbatches > 1 else ""
        rows = batch_size // microbatches if batch_size % microbatches == 0 else 0
        fewer = max((n for n in range(1, mesh.size) if rows and rows % n == 0), default=0)
        other = f", or, as a run that is continued must, config.devices to {fewer}" if fewer else ""
        raise InputError(
            f"A batch of {batch_size}{split} does not divide over {mesh.size} devices; "
            f"set config.batch_size to {lower} or {lower + parts}{other}."
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts the global batch on the devices, each process its own rows."""
    sharding = batch_sharding(mesh)
    small = mesh.size == 1 and sum(values.nbytes for values in batch.values()) <= _SMALL_BYTES
    if jax.process_count() == 1 and not small:
        return jax.device_put(dict(batch), sharding)  # all arrays in one call
    # Both transfers are intended, but JAX counts them as implicit and the loop's transfer guard would refuse them.
    with jax.transfer_guard_host_to_device("allow"):
        if small:
            return _hand_over(sharding)(dict(batch))
        return {name: jax.make_array_from_process_local_data(sharding, values) for name, values in batch.items()}


@functools.cache
def _hand_over(sharding: NamedSharding) -> Callable[[dict[str, np.ndarray]], dict[str, jax.Array]]:
    """A program that returns its arguments: passing arrays to it takes a quarter of `device_put`'s time on the host."""
    return jax.jit(lambda batch: batch, in_shardings=sharding, out_shardings=sharding)
