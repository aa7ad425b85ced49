"""What MT-PKDOT's student imitates of a teacher: the batch's structure, its centroids, or the features themselves."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError
from emokd.losses import features, structure, transport
from emokd.losses.shapes import check_range
from emokd.recipes import common, relations

DISTANCES = {"mse": features.mean_squared, "cosine": features.cosine}
ANCHORS = ("least", "most", "all")

Theirs = Sequence[tuple[Float[Array, "B E"], Bool[Array, " B"]]]
"""Of each teacher its features, and the examples that have its modality."""


def check(config: ml_collections.ConfigDict, devices: int) -> None:
    """Checks the sections `objective`, `structure` and the key `distance`.

    Args:
      config: the configuration.
      devices: over how many devices a batch is split.

    Raises:
      InputError: an option is unknown or outside its range, or the batch is no larger than the number of anchors.
    """
    common.choose(DISTANCES, config.distance, "config.distance")
    common.choose(dict.fromkeys(ANCHORS), config.structure.anchors, "config.structure.anchors")
    common.choose(dict.fromkeys(transport.SOLVERS), config.structure.solver, "config.structure.solver")
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


def imitate(
    config: ml_collections.ConfigDict,
    teachers: Sequence[str],
    own: Float[Array, "B D"],
    theirs: Theirs,
    counts: Bool[Array, "B K"],
) -> tuple[Float[Array, "B K"], dict[str, Array]]:
    """How far the student is from each teacher, and per-example values for the log.

    Every row meets every other one: of the global batch or, with `structure.local`, of each device's rows.

    Args:
      config: `objective`, `structure`, `distance`.
      teachers: their names, in the order of `theirs`.
      own: the student's features.
      theirs: the teachers'.
      counts: which teachers weigh anything. One that weighs nothing on any row is not transported to: that part of
        its loss is 0, after 0 iterations.
    """
    weights = config.objective

    def compare(own: Array, others: tuple[Theirs, Array]) -> tuple[Array, dict[str, Array]]:
        theirs, counts = others
        answers, rows = map(list, zip(*theirs, strict=True))
        total, measured = jnp.zeros((own.shape[0], len(teachers)), jnp.float32), {}
        if weights.transport:
            found = _transport(config.structure, own, answers, rows, counts.any(0))
            total += weights.transport * found.values.T
            measured = transport_metrics(teachers, found, answers, rows)
        if weights.centroid:
            total += weights.centroid * jnp.stack(
                [structure.centroid_distance(own, theirs, mask=r) for theirs, r in zip(answers, rows, strict=True)], 1
            )
        if weights.features:
            total += weights.features * jnp.stack([DISTANCES[config.distance](own, theirs) for theirs in answers], 1)
        return total, measured

    spread = relations.of_each_device if config.structure.local else relations.of_the_batch
    return spread(compare)(own, (theirs, counts))


def _transport(
    section: ml_collections.ConfigDict, own: Array, answers: Sequence[Array], rows: Sequence[Array], counts: Array
) -> transport.Transport:
    """The divergence from the structure of every teacher that counts; the solver is compiled once for all of them."""
    k = 0 if section.anchors == "all" else section.k
    nearest = section.anchors == "most"
    theirs = jnp.stack([structure.cosine_similarities(a, mask=r) for a, r in zip(answers, rows, strict=True)])

    def solve(theirs: Array, rows: Array) -> transport.Transport:
        similarities = structure.cosine_similarities(own, mask=rows)
        clouds = structure.clouds_of_similarities(similarities, theirs, k=k, nearest=nearest, mask=rows)
        return transport.sinkhorn_divergence(*clouds, blur=section.blur, solver=section.solver, mask=rows)

    def pass_over(theirs: Array, rows: Array) -> transport.Transport:
        nothing = jnp.zeros((), theirs.dtype)
        return transport.Transport(jnp.zeros_like(theirs[:, 0]), nothing, nothing, nothing, nothing + 1)

    # One after another: side by side each would iterate as long as the slowest, and none could be left out.
    return jax.lax.map(
        lambda problem: jax.lax.cond(problem[0], solve, pass_over, *problem[1:]), (counts, theirs, jnp.stack(rows))
    )


def similarity_range(features: Float[Array, "B D"], rows: Bool[Array, " B"]) -> tuple[Array, Array]:
    """Lowest and highest cosine between two different examples, without gradient."""
    similarities = jax.lax.stop_gradient(structure.cosine_similarities(features, mask=rows))
    pairs = rows[:, None] & rows[None, :] & ~jnp.eye(rows.shape[0], dtype=bool)
    return jnp.where(pairs, similarities, jnp.inf).min(), jnp.where(pairs, similarities, -jnp.inf).max()


def transport_metrics(
    teachers: Sequence[str], found: transport.Transport, features: Sequence[Array], rows: Sequence[Array]
) -> dict[str, Array]:
    """What the log says of each teacher's transport, as per-example values; `found` has a row for each teacher."""
    metrics = {}
    for k, name in enumerate(teachers):
        lowest, highest = similarity_range(features[k], rows[k])
        values = {
            "transport/iterations": found.iterations[k],
            "transport/error": found.error[k],
            "transport/converged": found.converged[k],
            "similarity/lowest": lowest,
            "similarity/highest": highest,
        }
        metrics[f"transport/divergence/{name}"] = found.values[k]
        metrics |= {f"{key}/{name}": jnp.broadcast_to(value, rows[k].shape) for key, value in values.items()}
    return metrics


def transport_remark(metrics: Mapping[str, float]) -> str:
    """What a person should know of the solver's state; empty where all is well."""
    bad = [
        name.split("/")[-1]
        for name, value in metrics.items()
        if name.startswith("transport/converged/") and not value >= 1
    ]
    if not bad:
        return ""
    told = [
        f"{name}: marginal error {metrics[f'transport/error/{name}']:.2g} after "
        f"{metrics[f'transport/iterations/{name}']:.0f} iterations, the teacher's similarities lie in "
        f"[{metrics[f'similarity/lowest/{name}']:.3g}, {metrics[f'similarity/highest/{name}']:.3g}]"
        for name in bad
    ]
    return (
        f"Optimal transport has not converged ({'; '.join(told)}). Raise config.structure.blur, or lower "
        "config.structure.k."
    )
