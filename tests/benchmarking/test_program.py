"""What a program holds: collectives of sharded programs, shapes, and live work, against numbers by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from live_macs import count_live_macs

from emokd.benchmarking.compilations import count_compilations
from emokd.benchmarking.program import describe_program, find_collectives, shape_bytes
from emokd.training.sharding import batch_sharding, create_mesh, replicated

F32 = 4


def test_collectives_of_a_sharded_program():
    mesh = create_mesh(8)

    def function(x, w):
        y = x @ w  # [16, 4], rows over the devices
        whole = jax.lax.with_sharding_constraint(jnp.tanh(y), PartitionSpec())
        return whole, (y**2).sum()

    x, w = jax.ShapeDtypeStruct((16, 6), jnp.float32), jax.ShapeDtypeStruct((6, 4), jnp.float32)
    jitted = jax.jit(function, in_shardings=(batch_sharding(mesh), replicated(mesh)), out_shardings=replicated(mesh))
    with jax.set_mesh(mesh):
        compiled = jitted.lower(x, w).compile()
    found = describe_program(compiled)
    assert found["collectives"] == {
        "all-gather": {"count": 1, "bytes": 16 * 4 * F32},
        "all-reduce": {"count": 1, "bytes": F32},
    }
    # One device has 2 rows of x and the whole of w, and gives the whole result and the sum.
    assert found["argument_bytes"] == (2 * 6 + 6 * 4) * F32
    assert found["peak_bytes"] >= (2 * 6 + 6 * 4 + 16 * 4 + 1) * F32
    assert found["flops"] >= 2 * 2 * 6 * 4  # two rows of the product


def test_explicit_collectives():
    mesh = create_mesh(8)

    def function(x):
        whole = jax.lax.all_gather(x, "data", tiled=True)
        return (
            jax.lax.psum(x, "data"),
            jax.lax.psum_scatter(whole, "data", tiled=True),
            jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
            jax.lax.all_to_all(whole, "data", 0, 0, tiled=True),
        )

    rows = PartitionSpec("data")
    mapped = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=(PartitionSpec(), rows, rows, rows))
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=NamedSharding(mesh, rows))
    shard = 2 * 4 * F32
    assert find_collectives(jax.jit(mapped).lower(x).compile().as_text()) == {
        "all-gather": {"count": 1, "bytes": 8 * shard},
        "all-reduce": {"count": 1, "bytes": shard},
        "reduce-scatter": {"count": 1, "bytes": shard},
        "collective-permute": {"count": 1, "bytes": shard},
        "all-to-all": {"count": 1, "bytes": 8 * shard},
    }


def test_an_asynchronous_collective_counts_once_with_its_result():
    hlo = """
      %ag = (f32[2,4]{1,0:T(8,128)}, f32[16,4]{1,0:T(8,128)}) all-gather-start(%x), channel_id=1, dimensions={0}
      %agd = f32[16,4]{1,0:T(8,128)} all-gather-done(%ag)
      %ar = (bf16[3]{0}, s32[]) all-reduce(%y, %z), channel_id=2, to_apply=%sum
      %fusion = f32[9]{0} fusion(%ar), kind=kLoop, calls=%all-reduce.1
    """
    assert find_collectives(hlo) == {
        "all-gather": {"count": 1, "bytes": 256},
        "all-reduce": {"count": 1, "bytes": 10},
    }


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[16,4]{1,0}", 256),
        ("f64[]", 8),
        ("pred[7]", 7),
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", 12),
        ("f8e4m3fn[5]", 5),
        ("s4[3]", 2),
        ("c64[2]", 16),
        ("f32[0,4]", 0),
        ("token[]", 0),
        ("(f32[2,4]{1,0}, /*index=1*/u8[3]{0})", 35),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert shape_bytes(shape) == size


def test_work_whose_result_nobody_uses_does_not_count():
    def function(x, w, v):
        _ = x @ v
        kept, _ = jax.jit(lambda a, b: (a @ b, b @ b))(x, w)
        return kept.sum()

    x, w, v = jnp.ones((2, 3)), jnp.ones((3, 5)), jnp.ones((3, 7))
    square = jnp.ones((3, 3))
    assert count_live_macs(function, x, square, v) == 2 * 3 * 3
    assert count_live_macs(lambda x, w: x @ w, x, w) == 2 * 3 * 5


def test_constants_of_the_trace_stay():
    w = jnp.ones((3, 5))
    assert count_live_macs(lambda x: x @ w, jnp.ones((2, 3))) == 2 * 3 * 5


def test_compilations_are_counted_inside_the_block_alone():
    double, x, y = jax.jit(lambda x: x * 2), jnp.ones(3), jnp.ones(4)
    with count_compilations() as found:
        double(x)
        double(x)
    double(y)
    assert len(found) == 1
