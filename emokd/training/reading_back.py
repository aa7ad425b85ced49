"""Reads a checkpoint's arrays back and compares them with the state that was saved. [ours]

Checksums are taken of the files that are there, so they cannot notice an array that never reached the folder; such an
array is read as zeros, or not at all.
Cost: the whole state is read into the host's memory once, in every process, and each process waits for it.
"""

import dataclasses
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from emokd.training.state import State


def difference(folder: pathlib.Path, state: State) -> str:
    """Describes the first array that is not as it was saved; empty where all are.

    Several processes must call it together. Each compares what its own devices hold.

    Args:
      folder: the checkpoint's `state`.
      state: what was saved.
    """
    # The root of randomness is left out: it is derived from the seed, and has no NumPy type.
    saved = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "key"}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
    on_host = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arguments = ocp.args.PyTreeRestore(item=shapes, restore_args=on_host, partial_restore=True)
            stored = reader.restore(epath.Path(folder), args=arguments)
    except Exception as error:  # orbax and TensorStore raise errors of many classes for what they cannot read
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for (path, leaf), array in zip(jax.tree.leaves_with_path(saved), jax.tree.leaves(stored), strict=True):
        parts = [(array[shard.index], jax.device_get(shard.data)) for shard in leaf.addressable_shards]
        if array.shape != leaf.shape or any(there.tobytes() != here.tobytes() for there, here in parts):
            return f"{jax.tree_util.keystr(path, simple=True, separator='/')} is not what was saved"
    return ""
