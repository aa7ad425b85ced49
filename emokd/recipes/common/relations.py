"""Losses that compare the rows of a batch with one another, in groups of so many rows, on any number of devices.

How many rows are compared is a part of the method; over how many devices the batch is split is not. Where a device has
several groups, it works them out together and exchanges nothing. Where a group lies on several neighbours, they gather
its rows, each of them works out its own part of every matrix of pairs, and no other device takes part.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from emokd.errors import InputError
from emokd.losses.group import ALONE, Group

Student = Any
Teachers = Any
Result = Any
# What is compared, with what, and the results: trees of arrays. Only `Student` gets gradients.

Compare = Callable[[Student, Teachers, Group], Result]
"""(student, teachers, group) -> result.

What comes in is [G, R, ...]: G groups of R rows, whole. What goes out is [G, r, ...]: this device's rows of them."""


def rows_of_a_group(rows: int, batch_size: int) -> int:
    """`config.structure.rows` in rows: the whole batch for 0, or where it is smaller than a group."""
    return min(rows, batch_size) or batch_size


def check_rows(rows: int, batch_size: int, devices: int) -> None:
    """Checks that groups of rows divide the batch, and fit its devices.

    Raises:
      InputError: they do not; the message says what would.
    """
    if rows < 0:
        raise InputError(f"config.structure.rows must be at least 0, which is the whole batch, not {rows}.")
    size = rows_of_a_group(rows, batch_size)
    if batch_size % size:
        below = max(n for n in range(1, size) if batch_size % n == 0)
        raise InputError(
            f"config.structure.rows is {size}, which does not divide config.batch_size ({batch_size}): a smaller "
            f"last group would be compared with fewer others. Set config.structure.rows to {below}, or to 0 for the "
            f"whole batch; or config.batch_size to {batch_size - batch_size % size} or "
            f"{batch_size - batch_size % size + size}."
        )
    each = batch_size // devices
    if batch_size % devices == 0 and each % size and size % each:
        fitting = [n for n in range(1, devices) if batch_size % n == 0 and _fits(size, batch_size // n)]
        raise InputError(
            f"Groups of {size} rows (config.structure.rows) do not lie on {devices} devices of {each} rows each: a "
            f"device needs whole groups, or a group whole devices. Set config.devices to {fitting[-1]}, or "
            "config.batch_size or config.structure.rows to a multiple of the other on each device."
        )


def _fits(size: int, each: int) -> bool:
    return each % size == 0 or size % each == 0


def in_groups(compare: Compare, rows: int) -> Callable[[Student, Teachers], Result]:
    """`compare` of every group of `rows` neighbouring rows of the global batch; each device gets its own rows' results.

    Where a group lies on several devices, it costs two gathers among these, one of the student's rows and one of the
    teachers', the reduction of the student's gradient, and what `compare` exchanges.

    Args:
      compare: works out groups.
      rows: of a group; 0 or more than there are: all rows are one group.
    """

    def of_devices(student: Student, teachers: Teachers, group: Group, size: int) -> Result:
        if group.devices > 1:
            student, teachers = _gather_together(student, group), _gather_together(teachers, group)
        student, teachers = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // size, size, *x.shape[1:]), (student, teachers)
        )
        compared = compare(student, teachers, group)
        return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), compared)

    def of_the_batch(student: Student, teachers: Teachers) -> Result:
        batch = jax.tree.leaves(student)[0].shape[0]
        mesh = jax.sharding.get_abstract_mesh()
        size, devices = rows_of_a_group(rows, batch), 1 if mesh.empty else mesh.size
        check_rows(rows, batch, devices)
        if devices == 1:
            return of_devices(student, teachers, ALONE, size)
        axes = tuple(mesh.axis_names)
        sharing = size * devices // batch
        group = Group(sharing, axes, devices) if sharing > 1 else ALONE
        split = jax.sharding.PartitionSpec(axes)
        # The check is of outputs that are equal on all devices, and there are none; it would reject the solvers' loops.
        return jax.shard_map(
            lambda student, teachers: of_devices(student, teachers, group, size),
            in_specs=split,
            out_specs=split,
            check_vma=False,
        )(student, teachers)

    return of_the_batch


def _gather_together(tree: Any, group: Group) -> Any:
    """Gathers a group's rows of every array in one collective; for floats, and masks, which floats hold exactly."""
    arrays, treedef = jax.tree.flatten(tree)
    dtype = max((x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)), key=lambda d: d.itemsize)
    columns = [x.reshape(x.shape[0], math.prod(x.shape[1:])).astype(dtype) for x in arrays]
    whole = group.join(jnp.concatenate(columns, axis=1))
    ends = [0]
    for column in columns:
        ends.append(ends[-1] + column.shape[1])
    parts = [
        whole[:, start:end].reshape(-1, *x.shape[1:]).astype(x.dtype)
        for x, start, end in zip(arrays, ends[:-1], ends[1:], strict=True)
    ]
    return jax.tree.unflatten(treedef, parts)
