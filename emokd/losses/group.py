"""A group of rows that are compared with one another, on one device or on neighbours of a mesh.

A loss that compares rows takes the whole group's inputs, and works out the rows of this device alone: its part of every
matrix of pairs. What a device found for its rows is joined, or summed, over the devices of the group, and of no other.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool


@dataclasses.dataclass(frozen=True)
class Group:
    """Over which devices a group's rows are split, in contiguous blocks. The default is one device with all of them.

    Where there are several, every method has to be called inside `jax.shard_map` over the axes, by all devices.

    Attributes:
      devices: how many neighbours share the group.
      axes: the names of the mesh's axes.
      mesh_size: how many devices the mesh has, a multiple of `devices`.
    """

    devices: int = 1
    axes: tuple[str, ...] = ()
    mesh_size: int = 1

    @property
    def _neighbours(self) -> list[list[int]] | None:
        """The devices of every group, for the collectives; None where all of the mesh are one."""
        if self.devices == self.mesh_size:
            return None
        return [list(range(start, start + self.devices)) for start in range(0, self.mesh_size, self.devices)]

    def own(self, values: Array, axis: int = 0) -> Array:
        """This device's block of the rows along an axis, from those of the whole group."""
        if self.devices == 1:
            return values
        rows = values.shape[axis] // self.devices
        start = lax.axis_index(self.axes) % self.devices * rows
        return lax.dynamic_slice_in_dim(values, start, rows, axis)

    def join(self, values: Array, axis: int = 0) -> Array:
        """The whole group's rows along an axis, from each device's: undoes `own`. Its gradient is summed and split."""
        if self.devices == 1:
            return values
        return lax.all_gather(values, self.axes, axis_index_groups=self._neighbours, axis=axis, tiled=True)

    def total(self, values: Array) -> Array:
        """The sum over the group's devices."""
        if self.devices == 1:
            return values
        return lax.psum(values, self.axes, axis_index_groups=self._neighbours)

    def smallest(self, values: Array) -> Array:
        """The least of the group's devices, without gradient."""
        if self.devices == 1:
            return lax.stop_gradient(values)
        return lax.pmin(lax.stop_gradient(values), self.axes, axis_index_groups=self._neighbours)

    def anywhere(self, flag: Bool[Array, ""]) -> Bool[Array, ""]:
        """Whether the flag is set in any group of the mesh.

        Groups that exchange rows inside a loop or a condition have to take the same number of turns, whatever their
        data: on a TPU a collective in which only some groups take part may wait for the others.
        """
        if self.devices == 1:
            return flag
        return lax.pmax(flag.astype(jnp.int32), self.axes) > 0


ALONE = Group()
"""All rows of the group are on this device."""
