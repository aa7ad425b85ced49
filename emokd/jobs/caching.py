"""A run's teacher cache: the key that identifies its content, and the computation of the teachers' features.

Several processes divide the examples. Each runs the teachers on its own devices and writes parts of its own. Nothing is
exchanged, so a teacher's features of an example do not depend on the number of processes.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from emokd.data.cache import writer as cache_writer
from emokd.data.cache.reader import CENTRE, FORMAT, Key, TeacherCache, check_dtype, long_ids
from emokd.data.cache.writer import Plan
from emokd.data.canvases import BadImages, Canvases
from emokd.data.decode import DecodeError
from emokd.data.examples import Examples
from emokd.data.pipeline import evaluation_batches, to_device
from emokd.errors import InputError, excerpt
from emokd.models.network import TrainedModel
from emokd.phase import FrozenFeatures
from emokd.recipes.common.standardize import Moments
from emokd.reporting.progress import Progress
from emokd.training.distributed import together
from emokd.training.loop import Job
from emokd.training.sharding import batch_sharding, check_batch_size, create_local_mesh, put_batch, replicated

COARSE = 0.1
"""Features that rounding changes by more than this share of their standard deviation are named in the log. [ours]"""
SAMPLE = 32
"""How many pictures of each set are decoded when a cache is opened, to see that equal bytes still give equal pixels."""


def open_cache(job: Job, models: Mapping[str, TrainedModel]) -> TeacherCache:
    """The teacher cache of `config.cache.dir`, checked against this run.

    Raises:
      InputError: the cache is unfinished or stale, or `config.data.views` is 0, which is no limit.
    """
    return TeacherCache(pathlib.Path(job.config.cache.dir), _key_of(job, models))


def write_cache(job: Job, models: Mapping[str, TrainedModel], folder: pathlib.Path) -> dict:
    """Computes every frozen teacher's features of every example in every view, and stores them in `folder`.

    A cache that was interrupted is continued; a finished one is left as it is.

    Args:
      job: a job whose recipe has the frozen teachers' weights as constants.
      models: the networks that were read from files, by name.
      folder: the cache, the same for all processes.

    Returns:
      The cache's key and its size in bytes.

    Raises:
      InputError: there is no frozen teacher, views are not limited, `folder` holds another cache, the disk is too
        small, a picture cannot be read, or features do not fit `config.cache.dtype`.
    """
    config = job.config
    features = job.recipe.frozen_features
    if features is None or not asked(job):
        raise InputError("No teacher of this configuration is frozen from the start, so there is nothing to cache.")
    mesh = create_local_mesh(config.devices)
    check_batch_size(config.batch_size, mesh)
    key, widths = _key_of(job, models), widths_of(job, features)
    examples = _all_pictures(job)
    plan = cache_writer.create_plan(key, widths, len(examples), config.batch_size)
    size = plan.rows * plan.row_bytes
    written = {"key": key, "bytes": size}
    if cache_writer.is_finished(folder, key):
        cache_writer.remove_marker(folder)
        logging.info("%s is finished already.", folder)
        return written
    logging.info(
        "The cache in %s will take %s: %d views of %d examples by %s.",
        *(folder, cache_writer.in_words(size), key["views"] + 1, plan.rows, ", ".join(widths)),
    )
    process, processes = jax.process_index(), jax.process_count()
    if process > 0:
        together("cache begun")  # the first process has written the plan
    plan = cache_writer.begin(folder, plan)
    if process == 0:
        together("cache begun")
    missing = cache_writer.missing_parts(folder, plan)
    if len(missing) < plan.parts:
        logging.info("%d of %d parts are there already.", plan.parts - len(missing), plan.parts)
    assigned = [part for part in missing if part % processes == process]
    blocks = _pieces(
        _ask(job, features, examples, plan, assigned, mesh), [len(plan.rows_of(part)) for part in assigned]
    )
    for first in range(0, plan.parts, processes):
        if first + process in assigned:
            cache_writer.write_part(folder, plan, first + process, next(blocks))
        together(f"cache parts from {first}")  # so that no process waits longer than one part takes
    if process == 0:
        cache_writer.finish(folder, plan, long_ids(examples.ids, examples.checks))
    together("cache finished")
    return written


def cache_key(
    config: ml_collections.ConfigDict,
    teachers: Mapping[str, TrainedModel],
    splits: Mapping[str, Examples],
    extra: Examples | None,
) -> Key:
    """What decides the content of a teacher cache: weights, pixels, views, examples (however they are split).

    Raises:
      InputError: `config.data.views` is 0, so that no cache could hold all views, or `config.cache.dtype` is unknown.
    """
    data = config.data
    if data.views < 1:
        raise InputError(
            "A teacher cache holds a limited number of views per example: set config.data.views, say to 8."
        )
    sets = {"labelled": list(splits.values())} | ({"extra": [extra]} if extra else {})
    key = {
        "format": FORMAT,
        "teachers": {
            name: {
                "weights": model.origin,
                "network": {"backbone": model.spec.backbone, "options": dict(model.spec.options)},
                "preprocessing": vars(model.spec.preprocessing),
            }
            for name, model in teachers.items()
        },
        "examples": {name: _fingerprint(_pictures(parts), data.canvas, data.fit) for name, parts in sets.items()},
        "canvas": data.canvas,
        "fit": data.fit,
        "augment": data.augment.to_dict(),
        "views": data.views,
        "view_seed": data.view_seed,
        "precision": config.precision,
        "dtype": check_dtype(config.cache.dtype),
    }
    return json.loads(json.dumps(key))


def _key_of(job: Job, models: Mapping[str, TrainedModel]) -> Key:
    """The key of a job's frozen teachers: a teacher that learns is never read from a cache."""
    frozen = {name: models[name] for name in asked(job) if name in models}
    return cache_key(job.config, frozen, job.splits, job.extra)


def asked(job: Job) -> list[str]:
    """Names of the frozen teachers whose features are cached: networks, but not files of answers."""
    return sorted(name for name in job.recipe.constants if name in job.recipe.networks)


def _pictures(parts: Iterable[Examples]) -> Examples:
    """The pictures of several splits, ascending by their long ids: the same however the set is split.

    An example in two splits, where the test split is also the validation split, counts once.

    Raises:
      InputError: the data has no pictures.
    """
    parts = list(parts)
    if "image" not in parts[0].inputs:
        raise InputError(f"{parts[0].name} has no pictures, so there is nothing to show to a teacher.")
    places = {key: (part, i) for part in parts for i, key in enumerate(part.keys)}
    keys, owners = list(places), list(places.values())

    def read(i: int) -> np.ndarray:
        part, place = owners[i]
        return part.inputs["image"](place)

    def checksum(i: int) -> str:
        part, place = owners[i]
        return (part.checksum or part.content)(place)

    pictures = Examples(parts[0].name, keys, columns={}, classes={}, inputs={"image": read}, content=checksum)
    return pictures.select(np.argsort(long_ids(pictures.ids, pictures.checks)))


def _all_pictures(job: Job) -> Examples:
    """All pictures of which the job may need teacher features.

    Raises:
      InputError: a labelled and an extra picture have the same name.
    """
    labelled = _pictures(job.splits.values())
    if not job.extra:
        return labelled
    both = set(labelled.keys) & set(job.extra.keys)
    if both:
        raise InputError(
            f"{job.extra.name} and {labelled.name} have pictures of the same names, which a teacher cache would mix "
            f"up: {excerpt(sorted(both))}. Rename the files of one of them."
        )
    return _pictures([labelled, job.extra])


def _fingerprint(examples: Examples, canvas: int, fit: str) -> dict[str, Any]:
    """Digests of a set: of its names, of some of its pictures' canvases, and of each picture's bytes by its name.

    The bytes enter by `Examples.checksums`; every picture has an entry, so that a message can name those that changed.
    """
    names = hashlib.sha256("\n".join(sorted(examples.keys)).encode()).hexdigest()
    checksums = sorted(zip(examples.keys, examples.checksums(), strict=True))
    read = Canvases(examples, canvas, fit, keep=False).read
    pixels = hashlib.sha256()
    for i in np.linspace(0, len(examples) - 1, min(SAMPLE, len(examples))).astype(int).tolist():
        try:
            pixels.update(np.ascontiguousarray(read(i)).data)
        except DecodeError:
            pixels.update(b"unreadable")
    return {
        "names": f"{len(examples)} ({names[:16]})",
        "pixels": pixels.hexdigest()[:16],
        "pictures": {key: hashlib.blake2b(text.encode(), digest_size=4).hexdigest() for key, text in checksums},
    }


def widths_of(job: Job, features: FrozenFeatures) -> dict[str, int]:
    """The number of features of each frozen teacher, in order of the names."""
    size, canvas = job.config.batch_size, job.config.data.canvas
    batch = {
        "image": jax.ShapeDtypeStruct((size, canvas, canvas, 3), np.uint8),
        "id": jax.ShapeDtypeStruct((size,), np.uint32),
        "view": jax.ShapeDtypeStruct((size,), np.int32),
        "mask": jax.ShapeDtypeStruct((size,), np.bool_),
    }
    shapes = jax.eval_shape(lambda c, b: features(c, b, centre=True), job.recipe.constants, batch)
    return {name: shapes[name].shape[1] for name in sorted(shapes)}


def _ask(
    job: Job, features: FrozenFeatures, examples: Examples, plan: Plan, parts: list[int], mesh: Mesh
) -> Iterator[Shaped[np.ndarray, "b V D"]]:
    """Computes the teachers' features of the examples of some parts, batch by batch; decodes each picture once.

    Raises:
      InputError: a picture cannot be read, or features are not finite in the type that is stored.
    """
    if not parts:
        return
    config, recipe = job.config, job.recipe
    chosen = examples.select(np.concatenate([plan.rows_of(part) for part in parts]))

    @functools.partial(jax.jit, static_argnames="centre", out_shardings=batch_sharding(mesh))
    def compute(constants, batch, view, centre):
        by_teacher = features(constants, {**batch, "view": jnp.full_like(batch["view"], view)}, centre)
        dtype = jnp.float32 if centre else plan.dtype  # unrounded, so that the host can measure the rounding
        return jnp.concatenate([by_teacher[name].astype(dtype) for name in plan.widths], axis=1)

    constants = jax.device_put(recipe.constants, replicated(mesh))
    bad = BadImages()
    host = evaluation_batches(
        chosen,
        batch_size=config.batch_size,
        canvas=config.data.canvas,
        fit=config.data.fit,
        num_threads=config.data.num_threads,
        max_bad_fraction=1.0,  # the first bad picture is refused below, by its name
        bad_images=bad,
    )
    steps = -(-len(chosen) // config.batch_size)
    progress = Progress([("cache", steps)], batch_size=config.batch_size, devices=mesh.size)
    progress.begin("cache")
    moments: list[Moments] = []
    for step, batch in enumerate(to_device(host, lambda batch: put_batch(batch, mesh))):
        if len(bad):
            name, reason = next(iter(bad.reasons.items()))
            raise InputError(f"{name} cannot be read ({reason}). A teacher cache needs every picture: remove the file.")
        answers = [compute(constants, batch, np.int32(view), centre=False) for view in range(plan.views)]
        answers.append(compute(constants, batch, np.int32(CENTRE), centre=True))
        rows = min(config.batch_size, len(chosen) - step * config.batch_size)
        *views, centre = (answer[:rows] for answer in jax.device_get(answers))
        with np.errstate(over="ignore"):
            values = np.stack([*views, centre.astype(plan.dtype)], axis=1)
        _check_finite(values, plan)
        latest = [_moments(centre), _moments(values[:, -1].astype(np.float64) - centre)]
        moments = [before.merge(now) for before, now in zip(moments, latest, strict=True)] if moments else latest
        if step == steps - 1:  # before the last part is written
            _check_rounding(moments[0], moments[1], plan)
        progress.step()
        progress.show({})
        yield values
    progress.close()


def _check_finite(values: Shaped[np.ndarray, "b V D"], plan: Plan) -> None:
    wrong = ~np.isfinite(values.astype(np.float32)).all((0, 1))
    if wrong.any():
        ends = np.cumsum(list(plan.widths.values()))
        name = list(plan.widths)[int(np.searchsorted(ends, wrong.argmax(), side="right"))]
        raise InputError(
            f"Features of teacher {name!r} are infinite or no numbers in {plan.dtype}. "
            f"{'Set config.cache.dtype=bfloat16, which holds larger ones.' if plan.dtype == np.float16 else ''}"
        )


def _moments(values: Float[np.ndarray, "b D"]) -> Moments:
    values = values.astype(np.float64)
    mean = values.mean(0)
    number = np.full(mean.shape, float(len(values)))
    return Moments(number, mean, ((values - mean) ** 2).sum(0), values.min(0), values.max(0))


def _check_rounding(features: Moments, rounding: Moments, plan: Plan) -> None:
    """Warns of features that are so small, or vary so little beside their size, that rounding changes them much.

    Raises:
      InputError: most of a teacher's features are so.
    """
    alive = ~features.dead
    lost = alive & (np.hypot(rounding.std, rounding.mean) > COARSE * features.std)
    ends = np.cumsum(list(plan.widths.values()))
    for name, begin, end in zip(plan.widths, [0, *ends], ends, strict=False):
        places = np.flatnonzero(lost[begin:end]).tolist()
        words = (
            f"{len(places)} of {end - begin} features of teacher {name!r} are so small, or vary so little beside their "
            f"size, that {plan.dtype} moves them by more than {COARSE:g} of their deviation: {excerpt(places)} (from 0)"
        )
        if len(places) > alive[begin:end].sum() / 2:
            raise InputError(f"{words}. Set config.cache.dtype=float32, or give the teacher features of another unit.")
        if places:
            logging.warning("%s. config.cache.dtype=float32 keeps them.", words)


def _pieces(arrays: Iterator[np.ndarray], lengths: Iterable[int]) -> Iterator[np.ndarray]:
    """Concatenates arrays along their first axis, and cuts the result into pieces of these lengths."""
    held: list[np.ndarray] = []
    for length in lengths:
        while sum(map(len, held)) < length:
            held.append(next(arrays))
        joined = np.concatenate(held)
        yield joined[:length]
        held = [joined[length:]]
