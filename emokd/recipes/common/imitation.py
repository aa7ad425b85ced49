"""What MT-PKDOT's student imitates of a teacher: the batch's structure, its centroids, or the features themselves."""

import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError
from emokd.losses import structure, transport
from emokd.losses.group import ALONE, Group
from emokd.losses.shapes import check_range
from emokd.parts import part
from emokd.recipes.common import relations
from emokd.recipes.common.distances import DISTANCES
from emokd.recipes.common.phases import takes_part
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
      InputError: an option is unknown or outside its range, groups of rows do not fit the batch and its devices, or
        they are no larger than the number of anchors.
    """
    choose(DISTANCES, config.distance, "config.distance")
    choose(dict.fromkeys(ANCHORS), config.structure.anchors, "config.structure.anchors")
    choose(dict.fromkeys(transport.SOLVERS), config.structure.solver, "config.structure.solver")
    for name, value in config.objective.items():
        check_range(f"config.objective.{name}", value, 0)
    if takes_part(config.phases.teach):  # without teachers nothing is compared
        relations.check_rows(config.structure.rows, config.batch_size, devices)
    rows = relations.rows_of_a_group(config.structure.rows, config.batch_size)
    if rows < config.structure.rows:
        logging.info("The batch of %d is one group: config.structure.rows is %d.", rows, config.structure.rows)
    k, group = config.structure.k, "group" if rows < config.batch_size else "batch"
    if config.objective.transport and config.structure.anchors != "all" and not 1 <= k < rows:
        raise InputError(
            f"config.structure.k is {k}, but a {group} of {rows} has {rows - 1} other examples to anchor each one to: "
            f"lower config.structure.k or raise config.{'structure.rows' if group == 'group' else 'batch_size'}."
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

    Every row is compared with every other one of its group: `structure.rows` neighbouring rows of the global batch.

    Args:
      config: `objective`, `structure`, `distance`.
      teachers: their names, in the order of `teacher_features`.
      student_features: the student's.
      teacher_features: each teacher's, with the rows that have them.
      counts: which teachers have a weight other than 0 on each row. For a teacher that has none on any row of a group
        transport is not solved there: that part of its loss is 0, after 0 iterations.
    """
    weights = config.objective

    def compare(
        student_features: Array, others: tuple[TeacherFeatures, Array], group: Group
    ) -> tuple[Array, dict[str, Array]]:
        teacher_features, counts = others
        answers, rows = map(list, zip(*teacher_features, strict=True))
        own_rows = jax.vmap(group.own)
        total, measured = jnp.zeros((*own_rows(rows[0]).shape, len(teachers)), jnp.float32), {}
        similarities = functools.partial(_similarities, group)
        if weights.transport or weights.centroid:
            of_teachers = [similarities(a, r) for a, r in zip(answers, rows, strict=True)]
            of_student = [similarities(student_features, r) for r in rows]
        if weights.transport:
            student_matrices, teacher_matrices, teacher_rows = (jnp.stack(x) for x in (of_student, of_teachers, rows))
            transported = _transport(
                config.structure, group, student_matrices, teacher_matrices, teacher_rows, counts.any(1)
            )
            total += weights.transport * jnp.moveaxis(transported.values, 0, -1)
            anyone = functools.reduce(jnp.logical_or, rows)
            compared = dict(zip(teachers, zip(of_teachers, rows, strict=True), strict=True))
            compared[STUDENT] = (similarities(student_features, anyone), anyone)
            measured = transport_metrics(teachers, transported, compared, group)
        if weights.centroid:
            centroid = functools.partial(structure.centroid_distance_of_similarities, group=group)
            distances = [
                jax.vmap(lambda s, t, r: centroid(s, t, mask=r))(*each)
                for each in zip(of_student, of_teachers, rows, strict=True)
            ]
            total += weights.centroid * jnp.stack(distances, -1)
        if weights.features:
            distance = jax.vmap(choose(DISTANCES, config.distance, "config.distance"))
            distances = [
                jnp.where(own_rows(r), distance(own_rows(student_features), own_rows(a)), 0.0)
                for a, r in zip(answers, rows, strict=True)
            ]
            total += weights.features * jnp.stack(distances, -1)
        return total, measured

    named = ", ".join(name for name in ("transport", "centroid", "features") if weights[name])
    with part(named):
        return relations.in_groups(compare, config.structure.rows)(student_features, (teacher_features, counts))


def _similarities(group: Group, features: Float[Array, "G B D"], rows: Bool[Array, "G B"]) -> Float[Array, "G R B"]:
    return jax.vmap(lambda x, r: structure.cosine_similarities(x, mask=r, group=group))(features, rows)


def _transport(
    section: ml_collections.ConfigDict,
    group: Group,
    student: Float[Array, "K G R B"],
    teacher: Float[Array, "K G R B"],
    rows: Bool[Array, "K G B"],
    counts: Bool[Array, "G K"],
) -> transport.Transport:
    """The divergence from the structure of every teacher with weight, [K, G, ...], from the similarities.

    Every group has its teachers with weight first, and the turn of those behind them comes only where any group still
    has one. So where each group has chosen one teacher there is one turn, in which all groups are solved together.
    """
    k = 0 if section.anchors == "all" else section.k
    nearest = section.anchors == "most"
    order = jnp.argsort(~counts, axis=1, stable=True).T  # [K, G]: whose turn it is
    groups = jnp.arange(counts.shape[0])

    def solve(teachers: Array) -> transport.Transport:
        def of_one(student: Array, teacher: Array, rows: Array) -> transport.Transport:
            clouds = structure.clouds_of_similarities(student, teacher, k=k, nearest=nearest, mask=rows, group=group)
            blur, solver = section.blur, section.solver
            return transport.sinkhorn_divergence(*clouds, blur=blur, solver=solver, mask=rows, group=group)

        # Without rows that count there is nothing to iterate.
        wanted = counts[groups, teachers]
        counted = rows[teachers, groups] & wanted[:, None]
        solved = jax.vmap(of_one)(student[teachers, groups], teacher[teachers, groups], counted)
        passed = jax.tree.map(jnp.zeros_like, solved)._replace(converged=jnp.ones_like(solved.converged))
        return jax.tree.map(
            lambda x, nothing: jnp.where(wanted.reshape(-1, *[1] * (x.ndim - 1)), x, nothing), solved, passed
        )

    def pass_over(teachers: Array) -> transport.Transport:
        nothing = jnp.zeros(teachers.shape, student.dtype)
        return transport.Transport(jnp.zeros_like(student[0, :, :, 0]), nothing, nothing, nothing, nothing + 1)

    def take_turn(teachers: Array) -> transport.Transport:
        some = group.anywhere(counts[groups, teachers].any())
        return jax.lax.cond(some, solve, pass_over, teachers)

    transported = jax.lax.map(take_turn, order)
    turn = jnp.argsort(order, axis=0)  # of each teacher
    return jax.tree.map(lambda x: x[turn, groups[None]], transported)


def similarity_range(
    similarities: Float[Array, "R B"], rows: Bool[Array, " B"], group: Group = ALONE
) -> tuple[Array, Array]:
    """Lowest and highest cosine between two different examples, without gradient; 0 where there are no two."""
    similarities, indices = jax.lax.stop_gradient(similarities), jnp.arange(rows.shape[0])
    pairs = group.own(rows)[:, None] & rows[None, :] & (group.own(indices)[:, None] != indices[None, :])
    lowest = group.smallest(jnp.where(pairs, similarities, jnp.inf).min())
    highest = -group.smallest(-jnp.where(pairs, similarities, -jnp.inf).max())
    some = rows.sum() > 1
    return jnp.where(some, lowest, 0.0), jnp.where(some, highest, 0.0)


def transport_metrics(
    teachers: Sequence[str],
    transported: transport.Transport,
    similarities: Mapping[str, tuple[Float[Array, "G R B"], Bool[Array, "G B"]]],
    group: Group,
) -> dict[str, Array]:
    """Log values of each teacher's transport, each [G, R]; `transported` is [K, G, ...].

    Args:
      teachers: their names.
      transported: what the solver gave.
      similarities: of every teacher and of the student, with the rows that count.
      group: which rows are this device's.
    """
    of_groups = jax.vmap(functools.partial(similarity_range, group=group))
    ranges = {name: of_groups(*each) for name, each in similarities.items()}
    values = {f"similarity/lowest/{name}": lowest for name, (lowest, _) in ranges.items()}
    values |= {f"similarity/highest/{name}": highest for name, (_, highest) in ranges.items()}
    for k, name in enumerate(teachers):
        values[f"transport/iterations/{name}"] = transported.iterations[k]
        values[f"transport/error/{name}"] = transported.error[k]
        values[f"transport/converged/{name}"] = transported.converged[k]
    shape = transported.values.shape[1:]
    metrics = {name: jnp.broadcast_to(value[:, None], shape) for name, value in values.items()}
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
