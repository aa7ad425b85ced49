"""Losses that compare the rows of a batch with one another, where the batch is split over devices.

Left to itself the compiler partitions their solvers as well, with gathers in every iteration. So the rows that they
compare are gathered once, and each device computes the whole batch: the work is repeated, without communication.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Student = TypeVar("Student")
Teachers = TypeVar("Teachers")
Result = TypeVar("Result")
# What is compared, with what, and the results: arrays of rows or trees of them. Only `Student` gets gradients.


def of_the_batch(compare: Callable[[Student, Teachers], Result]) -> Callable[[Student, Teachers], Result]:
    """`compare` of the global batch; each device keeps the results for its own rows.

    On several devices it costs two gathers, one of all of the student's rows and one of all of the teachers', and the
    reduction of the student's gradient.
    """
    return _by_device(compare, gathered=True)


def of_each_device(compare: Callable[[Student, Teachers], Result]) -> Callable[[Student, Teachers], Result]:
    """`compare` of each device's rows by themselves: no gather, and another result on another number of devices."""
    return _by_device(compare, gathered=False)


def _by_device(compare: Callable[[Student, Teachers], Result], gathered: bool) -> Callable[[Student, Teachers], Result]:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:  # each device has the whole batch
        return compare
    axes = mesh.axis_names
    rows = jax.sharding.PartitionSpec(axes)

    def of_whole(student: Student, teachers: Teachers) -> Result:
        count = jax.tree.leaves(student)[0].shape[0]
        compared = compare(_gather_together(student, axes), _gather_together(teachers, axes))
        start = jax.lax.axis_index(axes) * count
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, count), compared)

    # The check is of outputs that are equal on all devices, and there are none; it would reject the solvers' loops.
    return jax.shard_map(of_whole if gathered else compare, in_specs=rows, out_specs=rows, check_vma=False)


def _gather_together(tree: Any, axes: Sequence[str]) -> Any:
    """Gathers all devices' rows of every array in one collective; for floats, and masks, which floats hold exactly."""
    arrays, treedef = jax.tree.flatten(tree)
    dtype = max((x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)), key=lambda d: d.itemsize)
    columns = [x.reshape(x.shape[0], math.prod(x.shape[1:])).astype(dtype) for x in arrays]
    whole = jax.lax.all_gather(jnp.concatenate(columns, axis=1), tuple(axes), tiled=True)
    ends = [0]
    for column in columns:
        ends.append(ends[-1] + column.shape[1])
    parts = [
        whole[:, start:end].reshape(-1, *x.shape[1:]).astype(x.dtype)
        for x, start, end in zip(arrays, ends[:-1], ends[1:], strict=True)
    ]
    return jax.tree.unflatten(treedef, parts)
