"""Comparisons of rows in groups: on one device, on several, and where a group lies on neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emokd.benchmarking.hlo import first_group
from emokd.benchmarking.program import find_collectives
from emokd.errors import InputError
from emokd.recipes.common import relations
from emokd.training.sharding import batch_sharding, create_mesh


def compare(own, others, group):
    """For each row, sums over all rows that count: quadratic in `own`, so that every gradient has every row in it."""

    def of_one(own, features, mask, scalar):
        mine = group.own
        distances = ((mine(own)[:, None] - own[None, :]) ** 2).sum(-1) * (mine(features) @ features.T)
        values = jnp.where(mine(mask), jnp.where(mask[None], distances, 0.0).sum(1), 0.0)
        return {"values": values, "rows": mine(scalar)}

    return jax.vmap(of_one)(own, others["features"], others["mask"], others["scalar"])


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


def compiled(compare, rows, shape=(8, 4, 2)):
    """Values, and the gradient with respect to `own` of their weighted sum, on a mesh; and the collectives."""
    mesh = create_mesh(*shape)

    def both(own, others, cotangent):
        found, backward = jax.vjp(lambda own: relations.in_groups(compare, rows)(own, others), own)
        (gradient,) = backward({"values": cotangent, "rows": jnp.zeros_like(cotangent)})
        return found, gradient

    arrays = jax.device_put(make_arrays(), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        program = jax.jit(both).lower(*arrays).compile()
    return *program(*arrays), find_collectives(program.as_text()), program.as_text()


def in_numpy(rows):
    """The values and gradient over some rows, in float64."""
    own, others, cotangent = make_arrays()
    own, features, mask, cotangent = (np.float64(x[rows]) for x in (own, others["features"], others["mask"], cotangent))
    similar = (features @ features.T) * mask[:, None] * mask[None]
    difference = own[:, None] - own[None]
    values = ((difference**2).sum(-1) * similar).sum(1)
    pairs = similar * (cotangent[:, None] + cotangent[None])
    return values, 2 * (difference * pairs[:, :, None]).sum(1)


@pytest.mark.parametrize("devices", [(1,), (2, 1, 2), (8, 4, 2)], ids=lambda shape: str(shape[0]))
@pytest.mark.parametrize("rows", [0, 2, 4, 8, 99])
def test_groups_are_the_same_on_any_number_of_devices(rows, devices):
    found, gradient, collectives, text = compiled(compare, rows, devices)
    size = rows if 0 < rows < 16 else 16
    for group in np.arange(16).reshape(-1, size):
        values, expected = in_numpy(group)
        np.testing.assert_allclose(found["values"][group], values, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(gradient[group], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["rows"], make_arrays()[1]["scalar"])
    if size <= 16 // devices[0]:  # of a device by itself
        assert collectives == {}
        return
    # The group's rows, twice, and its gradient, once, and never among more devices than it lies on.
    assert collectives == {
        "all-gather": {"count": 2, "bytes": 4 * size * (3 + 5 + 1 + 1)},
        "reduce-scatter": {"count": 1, "bytes": 4 * 16 // devices[0] * 3},
    }
    together = size * devices[0] // 16
    among = [first_group(line) for line in text.splitlines() if "replica_groups=" in line]
    assert among == [tuple(range(together))] * 3


def test_a_tree_of_rows_is_gathered_as_one_array_is():
    """Two columns of `own` apart from the third."""

    def in_parts(own, others, group):
        return compare(jnp.concatenate([own["a"], own["b"]], 2), others, group)

    def apart(own, others):
        return relations.in_groups(in_parts, 0)({"a": own[:, :2], "b": own[:, 2:]}, others)

    own, others, _ = make_arrays()
    mesh = create_mesh(8)
    arrays = jax.device_put((own, others), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        found = jax.jit(apart)(*arrays)
    np.testing.assert_allclose(found["values"], in_numpy(np.arange(16))[0], rtol=1e-4, atol=1e-4)


def test_without_a_mesh_groups_are_compared_too():
    own, others, _ = make_arrays()
    found = relations.in_groups(compare, 8)(own, others)["values"]
    np.testing.assert_allclose(found[8:], in_numpy(np.arange(8, 16))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "batch", "devices", "message"),
    [
        (-1, 64, 1, "must be at least 0"),
        (48, 64, 1, r"rows is 48, which does not divide config.batch_size \(64\).*rows to 32, or to 0.*48 or 96"),
        (128, 384, 4, "Groups of 128 rows .* do not lie on 4 devices of 96 rows each.*config.devices to 3"),
    ],
)
def test_groups_that_do_not_fit_are_refused(rows, batch, devices, message):
    with pytest.raises(InputError, match=message):
        relations.check_rows(rows, batch, devices)


def test_groups_that_fit():
    for rows, batch, devices in ((0, 64, 8), (128, 64, 8), (128, 384, 3), (16, 64, 8), (4, 64, 8), (64, 64, 64)):
        relations.check_rows(rows, batch, devices)
