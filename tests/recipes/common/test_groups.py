"""What MT-PKDOT's losses of groups are: those of each group by itself, on however many devices it lies."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.losses import mmd, structure, transport
from emokd.recipes import mtpkdot
from emokd.recipes.common import hallucination, imitation
from emokd.training.sharding import batch_sharding, create_mesh
from emokd.weighting import chain as weighting

BATCH, TEACHERS = 32, ("eye", "heart")


def make_config(rows, solver):
    config = mtpkdot.default_config()
    config.structure.update({"rows": rows, "k": 3, "solver": solver})
    config.objective.features = 0.1
    return config


def make_arrays():
    """Features, which teachers have the row's modality, and which count: in the second group of 8 only the second."""
    rng = np.random.default_rng(0)
    own, *theirs = (rng.normal(size=(BATCH, 5)).astype(np.float32) for _ in range(3))
    known = [rng.random(BATCH) < 0.8 for _ in TEACHERS]
    counts = np.ones((BATCH, 2), bool)
    counts[8:16, 0] = counts[16:, 1] = False
    cotangent = rng.random((BATCH, 2)).astype(np.float32)
    return own, list(zip(theirs, known, strict=True)), counts, cotangent


@functools.cache
def on(devices, rows, solver):
    """Losses, logged values, gradient of the weighted losses, and the program's text."""
    config = make_config(rows, solver)

    def both(own, theirs, counts, cotangent):
        losses, backward, logged = jax.vjp(
            lambda own: imitation.imitate(config, TEACHERS, own, theirs, counts), own, has_aux=True
        )
        return losses, logged, backward(cotangent)[0]

    mesh = create_mesh(*devices)
    arrays = jax.device_put(make_arrays(), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        program = jax.jit(both).lower(*arrays).compile()
    return jax.device_get(program(*arrays)), program.as_text()


@functools.partial(jax.jit, static_argnums=0)
def _loss(solver, teacher, mask, chosen, student):
    points = structure.clouds(student, teacher, k=3, mask=mask)
    centroid = structure.centroid_distance(student, teacher, mask=mask)
    apart = jnp.where(mask, ((student - teacher) ** 2).mean(-1), 0.0)
    divergence = transport.sinkhorn_divergence(*points, solver=solver, mask=mask).values
    return 0.2 * chosen * divergence + 0.2 * centroid + 0.1 * apart


@functools.cache
def one_by_one(rows, solver):
    """The same, of each group and teacher by themselves, by the losses that know no groups."""
    own, theirs, counts, cotangent = make_arrays()
    losses, gradient = np.zeros((BATCH, 2)), np.zeros_like(own)
    for start in range(0, BATCH, rows):
        group = slice(start, start + rows)
        for k, (features, known) in enumerate(theirs):
            loss = functools.partial(
                _loss, solver, jnp.asarray(features[group]), jnp.asarray(known[group]), float(counts[group, k].any())
            )
            values, backward = jax.vjp(loss, jnp.asarray(own[group]))
            losses[group, k] = values
            gradient[group] += backward(jnp.asarray(cotangent[group, k]))[0]
    return losses, gradient


@pytest.mark.parametrize(
    ("devices", "solver"),
    [
        ((1,), "converged"), ((2,), "converged"), ((4, 2, 2), "converged"), ((8, 4, 2), "converged"),
        ((8, 4, 2), "geomloss"),
        *(pytest.param(devices, "geomloss", marks=pytest.mark.slow) for devices in ((1,), (2,), (4, 2, 2))),
    ],
    ids=str,
)  # fmt: skip
def test_groups_have_the_losses_and_gradients_of_each_by_itself(devices, solver):
    (losses, logged, gradient), _ = on(devices, 8, solver)
    expected, slopes = one_by_one(8, solver)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-5 * np.abs(slopes).max())
    # The teacher that nobody has chosen is not transported to, group by group.
    iterations = logged["transport/iterations/eye"].reshape(4, 8)
    assert (iterations[1] == 0).all() and (iterations[[0, 2, 3]] > 1).all()
    assert np.unique(logged["similarity/lowest/student"].reshape(4, 8), axis=1).shape == (4, 1)


@pytest.mark.parametrize("rows", [16, 32])
def test_one_and_eight_devices_agree(rows):
    """Groups on four devices, and one on all."""
    one, eight = (on(devices, rows, "converged")[0] for devices in ((1,), (8, 4, 2)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, eight)


@pytest.mark.slow
def test_groups_by_ott():
    (losses, _, gradient), _ = on((8,), 16, "ott")
    expected, slopes = one_by_one(16, "ott")
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-5 * np.abs(slopes).max())


def test_a_group_on_several_devices_is_nowhere_whole_as_pairs():
    """Of 16 x 16 pairs every device has its 4 x 16; what is gathered is rows, of the group alone."""
    _, text = on((8, 4, 2), 16, "converged")
    assert not re.search(r"\[(?:\d+,)*16,16\]", text) and re.search(r"\[(?:\d+,)*4,16\]", text)
    assert not re.search(r"\[(?:\d+,)*32,(?:\d+|\d+,\d+)\]", text)  # not the batch
    gathers = [line for line in text.splitlines() if " all-gather(" in line]
    assert gathers and all("replica_groups={{0,1,2,3},{4,5,6,7}}" in line for line in gathers)


@pytest.mark.parametrize("devices", [(1,), (8, 4, 2)], ids=lambda shape: str(shape[0]))
def test_the_discrepancy_is_of_groups_too(devices):
    own, ((theirs, known), _), _, _ = make_arrays()
    mesh = create_mesh(*devices)

    def distances(own, theirs, known):
        found = hallucination.token_distances("mmd", {"eye": own}, {"eye": (theirs, known)}, rows=16)["eye"]
        return found.sum(), found

    arrays = jax.device_put((own, theirs, known), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        slopes, found = jax.jit(jax.grad(distances, has_aux=True))(*arrays)
    for group in (slice(0, 16), slice(16, 32)):
        values, backward = jax.vjp(
            lambda y: mmd.gaussian_mmd(y, jnp.asarray(theirs[group]), mask=jnp.asarray(known[group])),  # noqa: B023
            jnp.asarray(own[group]),
        )
        np.testing.assert_allclose(found[group], values, rtol=1e-4)
        np.testing.assert_allclose(slopes[group], backward(jnp.ones(16))[0], rtol=1e-3, atol=1e-6)


def test_each_group_chooses_its_own_teacher():
    rng = np.random.default_rng(0)
    errors = rng.random((12, 3)).astype(np.float32)
    errors[5] = np.nan
    mask = np.arange(12) != 7
    chain = weighting.create(({"name": "most_confident", "per": "batch"},), group=4)
    weights, _ = chain.update(
        jnp.full((12, 3), 1 / 3),
        chain.init(jnp.zeros((12, 3))),
        None,
        errors=jnp.asarray(errors),
        mask=jnp.asarray(mask),
    )
    for start in range(0, 12, 4):
        rows = [i for i in range(start, start + 4) if mask[i] and i != 5]
        best = errors[rows].sum(0).argmin()
        for i in range(start, start + 4):
            np.testing.assert_array_equal(weights[i], np.eye(3)[best] * mask[i])


def test_each_group_draws_its_own_teacher():
    chain = weighting.create("random_teacher", group=4)
    state = chain.init(jnp.zeros((32, 3)))
    drawn = []
    for _ in range(8):
        weights, state = chain.update(jnp.full((32, 3), 1 / 3), state, None)
        drawn.append(np.asarray(weights).reshape(8, 4, 3))
    drawn = np.stack(drawn)
    assert (drawn == drawn[:, :, :1]).all() and (drawn.sum(-1) == 1).all()
    assert (drawn[:, :, 0] != drawn[:, :1, 0]).any()
