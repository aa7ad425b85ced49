"""What MT-PKDOT's student imitates of a teacher: the batch's structure, its centroids, or the features themselves."""

import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError
from emokd.losses import structure, transport
from emokd.losses.shapes import check_range
from emokd.parts import part
from emokd.recipes.common import relations
from emokd.recipes.common.distances import DISTANCES
from emokd.recipes.common.task import choose

ANCHORS = ("least", "most", "all")
STUDENT = "student"

TeacherFeatures = Sequence[tuple[Float[Array, "B E"], Bool[Array, " B"]]]
"""For each teacher its features, and the examples that have its modality."""


def check(config: ml_collections.ConfigDict, devices: int) -> None:
    """Checks the sections `objective`, `structure` and the key `distance`.

    Args:
      config: the configuration.
      devices: over how many devices a batch is split.

    Raises:
      InputError: an option is unknown or outside its range, or the batch is no larger than the number of anchors.
    """
    choose(DISTANCES, config.distance, "config.distance")
    choose(dict.fromkeys(ANCHORS), config.structure.anchors, "config.structure.anchors")
    choose(dict.fromkeys(transport.SOLVERS), config.structure.solver, "config.structure.solver")
    for name, value in config.objective.items():
        check_range(f"config.objective.{name}", value, 0)
    k, rows, where = config.structure.k, config.batch_size, ""
    if config.structure.local:
        rows, where = rows // devices, f" on each of {devices} devices (config.structure.local)"
    if config.objective.transport and config.structure.anchors != "all" and not 1 <= k < rows:
        raise InputError(
            f"config.structure.k is {k}, but a batch of {rows}{where} has {rows - 1} other examples "
            "to anchor each one to: lower config.structure.k or raise config.batch_size."
        )


def imitates(config: ml_collections.ConfigDict) -> bool:
    """Whether any loss in `config.objective` that has a teacher in it has a coefficient above 0."""
    return any(config.objective[name] for name in ("transport", "centroid", "features"))


def relational(config: ml_collections.ConfigDict) -> list[str]:
    """What in `config.objective` compares the examples of a batch, for `create_phase`."""
    return [f"config.objective.{name}" for name in ("transport", "centroid") if config.objective[name]]


def imitate(
    config: ml_collections.ConfigDict,
    teachers: Sequence[str],
    student_features: Float[Array, "B D"],
    teacher_features: TeacherFeatures,
    counts: Bool[Array, "B K"],
) -> tuple[Float[Array, "B K"], dict[str, Array]]:
    """How far the student is from each teacher, and per-example values for the log.

    Every row is compared with every other one: of the global batch or, with `structure.local`, of its device's rows.

    Args:
      config: `objective`, `structure`, `distance`.
      teachers: their names, in the order of `teacher_features`.
      student_features: the student's.
      teacher_features: each teacher's, with the rows that have them.
      counts: which teachers have a weight other than 0 on each row. For a teacher that has none on any row transport
        is not solved: that part of its loss is 0, after 0 iterations.
    """
    weights = config.objective

    def compare(student_features: Array, others: tuple[TeacherFeatures, Array]) -> tuple[Array, dict[str, Array]]:
        teacher_features, counts = others
        answers, rows = map(list, zip(*teacher_features, strict=True))
        total, measured = jnp.zeros((student_features.shape[0], len(teachers)), jnp.float32), {}
        if weights.transport:
            transported = _transport(config.structure, student_features, answers, rows, counts.any(0))
            total += weights.transport * transported.values.T
            measured = transport_metrics(teachers, transported, student_features, answers, rows)
        if weights.centroid:
            total += weights.centroid * jnp.stack(
                [
                    structure.centroid_distance(student_features, teacher_features, mask=r)
                    for teacher_features, r in zip(answers, rows, strict=True)
                ],
                1,
            )
        if weights.features:
            distance = choose(DISTANCES, config.distance, "config.distance")
            distances = [
                jnp.where(r, distance(student_features, teacher_features), 0.0)
                for teacher_features, r in zip(answers, rows, strict=True)
            ]
            total += weights.features * jnp.stack(distances, 1)
        return total, measured

    spread = relations.of_each_device if config.structure.local else relations.of_the_batch
    named = ", ".join(name for name in ("transport", "centroid", "features") if weights[name])
    with part(named):
        return spread(compare)(student_features, (teacher_features, counts))


def _transport(
    section: ml_collections.ConfigDict,
    student_features: Array,
    answers: Sequence[Array],
    rows: Sequence[Array],
    counts: Array,
) -> transport.Transport:
    """The divergence from the structure of every teacher with weight; the solver is compiled once for all of them."""
    k = 0 if section.anchors == "all" else section.k
    nearest = section.anchors == "most"
    teacher_similarities = jnp.stack(
        [structure.cosine_similarities(a, mask=r) for a, r in zip(answers, rows, strict=True)]
    )

    def solve(teacher_similarities: Array, rows: Array) -> transport.Transport:
        similarities = structure.cosine_similarities(student_features, mask=rows)
        clouds = structure.clouds_of_similarities(similarities, teacher_similarities, k=k, nearest=nearest, mask=rows)
        return transport.sinkhorn_divergence(*clouds, blur=section.blur, solver=section.solver, mask=rows)

    def pass_over(teacher_similarities: Array, rows: Array) -> transport.Transport:
        nothing = jnp.zeros((), teacher_similarities.dtype)
        return transport.Transport(jnp.zeros_like(teacher_similarities[:, 0]), nothing, nothing, nothing, nothing + 1)

    # In sequence: under `vmap` each solver would iterate as long as the slowest, and none could be skipped.
    return jax.lax.map(
        lambda problem: jax.lax.cond(problem[0], solve, pass_over, *problem[1:]),
        (counts, teacher_similarities, jnp.stack(rows)),
    )


def similarity_range(features: Float[Array, "B D"], rows: Bool[Array, " B"]) -> tuple[Array, Array]:
    """Lowest and highest cosine between two different examples, without gradient; 0 where there are no two."""
    similarities = jax.lax.stop_gradient(structure.cosine_similarities(features, mask=rows))
    pairs = rows[:, None] & rows[None, :] & ~jnp.eye(rows.shape[0], dtype=bool)
    lowest = jnp.where(pairs, similarities, jnp.inf).min()
    highest = jnp.where(pairs, similarities, -jnp.inf).max()
    return jnp.where(pairs.any(), lowest, 0.0), jnp.where(pairs.any(), highest, 0.0)


def transport_metrics(
    teachers: Sequence[str],
    transported: transport.Transport,
    student_features: Float[Array, "B D"],
    features: Sequence[Array],
    rows: Sequence[Array],
) -> dict[str, Array]:
    """Log values of each teacher's transport, each [B]; `transported` has a row for each teacher."""
    ranges = {
        name: similarity_range(teacher_features, r)
        for name, teacher_features, r in zip(teachers, features, rows, strict=True)
    }
    ranges[STUDENT] = similarity_range(student_features, functools.reduce(jnp.logical_or, rows))
    values = {f"similarity/lowest/{name}": lowest for name, (lowest, _) in ranges.items()}
    values |= {f"similarity/highest/{name}": highest for name, (_, highest) in ranges.items()}
    for k, name in enumerate(teachers):
        values[f"transport/iterations/{name}"] = transported.iterations[k]
        values[f"transport/error/{name}"] = transported.error[k]
        values[f"transport/converged/{name}"] = transported.converged[k]
    metrics = {name: jnp.broadcast_to(value, rows[0].shape) for name, value in values.items()}
    return metrics | {f"transport/divergence/{name}": transported.values[k] for k, name in enumerate(teachers)}


def transport_remark(metrics: Mapping[str, float], *, solver: str) -> str:
    """A warning where the solver has not converged; empty where it has.

    The solver `geomloss` does not iterate to convergence: it is warned of only where its error is not finite.
    """
    bad = []
    for name, value in metrics.items():
        teacher = name.removeprefix("transport/converged/")
        error = metrics.get(f"transport/error/{teacher}", 0.0)
        if teacher != name and not value >= 1 and (solver != "geomloss" or not math.isfinite(error)):
            bad.append(teacher)
    if not bad:
        return ""

    def told(name: str) -> str:
        return f"[{metrics[f'similarity/lowest/{name}']:.3g}, {metrics[f'similarity/highest/{name}']:.3g}]"

    each = [
        f"{name}: marginal error {metrics[f'transport/error/{name}']:.2g} after "
        f"{metrics[f'transport/iterations/{name}']:.0f} iterations, the teacher's similarities lie in {told(name)}"
        for name in bad
    ]
    return (
        f"Optimal transport has not converged ({'; '.join(each)}; the student's lie in {told(STUDENT)}). Raise "
        "config.structure.blur, or lower config.structure.k."
    )
