"""Comparisons of rows: over the batch of all devices, and over each device's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.benchmarking.program import find_collectives
from emokd.recipes.common import relations
from emokd.training.sharding import batch_sharding, create_mesh


def compare(own, others):
    """For each row, sums over all rows that count: quadratic in `own`, so that every gradient has every row in it."""
    features, mask = others["features"], others["mask"]
    distances = ((own[:, None] - own[None, :]) ** 2).sum(-1) * (features @ features.T)
    return {"values": jnp.where(mask, jnp.where(mask[None], distances, 0.0).sum(1), 0.0), "rows": others["scalar"]}


def make_arrays():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(16, 3)).astype(np.float32)
    others = {
        "features": rng.normal(size=(16, 5)).astype(np.float32),
        "mask": rng.random(16) < 0.7,
        "scalar": rng.normal(size=16).astype(np.float32),
    }
    cotangent = rng.normal(size=16).astype(np.float32)
    return own, others, cotangent


def compiled(of, shape=(8, 4, 2)):
    """Values, and the gradient with respect to `own` of their weighted sum, on a mesh; and the collectives."""
    mesh = create_mesh(*shape)

    def both(own, others, cotangent):
        found, backward = jax.vjp(lambda own: of(compare)(own, others), own)
        (gradient,) = backward({"values": cotangent, "rows": jnp.zeros_like(cotangent)})
        return found, gradient

    arrays = jax.device_put(make_arrays(), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        program = jax.jit(both).lower(*arrays).compile()
    return *program(*arrays), find_collectives(program.as_text())


def in_numpy(rows):
    """The values and gradient over some rows, in float64."""
    own, others, cotangent = make_arrays()
    own, features, mask, cotangent = (np.float64(x[rows]) for x in (own, others["features"], others["mask"], cotangent))
    similar = (features @ features.T) * mask[:, None] * mask[None]
    difference = own[:, None] - own[None]
    values = ((difference**2).sum(-1) * similar).sum(1)
    pairs = similar * (cotangent[:, None] + cotangent[None])
    return values, 2 * (difference * pairs[:, :, None]).sum(1)


def test_the_batch_is_gathered_twice_and_its_gradient_reduced_once():
    found, gradient, collectives = compiled(relations.of_the_batch)
    values, expected = in_numpy(np.arange(16))
    np.testing.assert_allclose(found["values"], values, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["rows"], make_arrays()[1]["scalar"])
    assert collectives == {
        "all-gather": {"count": 2, "bytes": 4 * 16 * (3 + 5 + 1 + 1)},
        "reduce-scatter": {"count": 1, "bytes": 4 * 2 * 3},
    }


def test_each_device_compares_its_own_rows():
    found, gradient, collectives = compiled(relations.of_each_device)
    for rows in np.arange(16).reshape(8, 2):
        values, expected = in_numpy(rows)
        np.testing.assert_allclose(found["values"][rows], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient[rows], expected, rtol=1e-4, atol=1e-5)
    assert collectives == {}


def test_a_tree_of_rows_is_gathered_as_one_array_is():
    """Two columns of `own` apart from the third."""

    def in_parts(compare):
        of_parts = relations.of_the_batch(lambda own, others: compare(jnp.concatenate([own["a"], own["b"]], 1), others))
        return lambda own, others: of_parts({"a": own[:, :2], "b": own[:, 2:]}, others)

    together, apart = compiled(relations.of_the_batch), compiled(in_parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), together, apart)


@pytest.mark.parametrize("of", [relations.of_the_batch, relations.of_each_device])
def test_one_device_exchanges_nothing(of):
    *found, collectives = compiled(of, shape=(1,))
    assert collectives == {}
    *plain, _ = compiled(lambda compare: compare, shape=(1,))
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    np.testing.assert_allclose(found[0]["values"], in_numpy(np.arange(16))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("of", [relations.of_the_batch, relations.of_each_device])
def test_without_a_mesh_all_rows_are_compared(of):
    own, others, _ = make_arrays()
    np.testing.assert_allclose(of(compare)(own, others)["values"], in_numpy(np.arange(16))[0], rtol=1e-4, atol=1e-4)
