"""The batches that a benchmark runs on: the job's, or a random one of the same shapes, made on the device."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from emokd.configuration import config as configuration
from emokd.errors import InputError, nearest
from emokd.training.loop import Job
from emokd.training.sharding import batch_sharding
from emokd.training.streams import Streams

KINDS = ("real", "fake")


def create_batches(job: Job, phase: int, kind: str, mesh: Mesh) -> Iterator[dict[str, Array]]:
    """Creates an endless iterator of a phase's batches.

    Args:
      job: the job.
      phase: the phase's index.
      kind: "real", read as training reads them, or "fake", the same random batch each time.
      mesh: the devices that batches are put on.

    Raises:
      InputError: the kind is unknown, or the data cannot be read.
    """
    if kind not in KINDS:
        raise InputError(f"The data can be {' or '.join(KINDS)}, not {kind!r}.{nearest(kind, KINDS)}")
    if kind == "real":
        extra = job.without_labels(job.recipe.phases[phase])
        return Streams(job.config, mesh, job.attach).training(job.splits["train"], extra, phase)
    return itertools.repeat(fake_batch(first_batch(job, phase, mesh), job.splits["train"].classes, mesh))


def first_batch(job: Job, phase: int, mesh: Mesh) -> dict[str, Array]:
    """A phase's first batch alone. Without threads nothing is read ahead, which would compete with what is measured."""
    extra = job.without_labels(job.recipe.phases[phase])
    unthreaded = configuration.locked(job.config, {"data.num_threads": 0})
    return next(Streams(unthreaded, mesh, job.attach).training(job.splits["train"], extra, phase))


def read_ahead(job: Job, kind: str) -> int:
    """How many batches may be read ahead while the step compiles: the pipeline's buffer and pending transfers."""
    return 2 * job.config.data.num_threads + 2 if kind == "real" else 0


def fake_batch(like: Mapping[str, Array], classes: Mapping[str, Sequence[str]], mesh: Mesh) -> dict[str, Array]:
    """Makes a random batch with the shapes and dtypes of `like`, split over the mesh; no row is padding or unlabelled.

    Args:
      like: a batch, or its shapes.
      classes: the class names of columns of class ids; other integer columns are 0 or 1.
      mesh: the devices that it is put on.
    """

    def value(name: str, key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        if dtype == jnp.bool_:
            return jnp.ones(shape, dtype)
        if jnp.issubdtype(dtype, jnp.unsignedinteger):
            return jax.random.bits(key, shape, dtype)
        if jnp.issubdtype(dtype, jnp.integer):
            return jax.random.randint(key, shape, 0, len(classes.get(name, "01")), dtype)
        if name == "votes":
            return jax.nn.softmax(jax.random.normal(key, shape, dtype))
        return jax.random.uniform(key, shape, dtype, -1, 1)

    def make() -> dict[str, Array]:
        keys = jax.random.split(jax.random.key(0), len(like))
        return {name: value(name, key, x.shape, x.dtype) for key, (name, x) in zip(keys, like.items(), strict=True)}

    return jax.jit(make, out_shardings=batch_sharding(mesh))()
