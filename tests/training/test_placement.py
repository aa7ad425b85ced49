"""Meshes of two axes, rules that split parameters, and runs on them against runs on one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from loop_runs import Killed, kill_at, losses, run
from ml_collections import ConfigDict

from emokd.benchmarking.program import find_collectives
from emokd.errors import InputError
from emokd.training.placement import create_placement, gathering, place_optimizer, place_tree, whole
from emokd.training.sharding import batch_sharding, check_batch_size, create_mesh, put_batch, replicated
from emokd.training.state import create_state
from emokd.training.step import create_train_step, parameter_labels

ONE, TWO = {"devices": 1}, {"devices": 2}
SPLIT = {
    "mesh.fsdp": 2,
    "sharding.min_size": 13,
    "sharding.state": (("(backbone|adapters)/.*", "fsdp"), ("head/w", "fsdp")),
    "sharding.teachers": ((".*/features", "fsdp"),),
}


def with_settings(config, settings):
    config.update_from_flattened_dict(settings)
    return config


def shard_shapes(array) -> set[tuple[int, ...]]:
    return {shard.data.shape for shard in array.addressable_shards}


@pytest.fixture(scope="module")
def one(tmp_path_factory, fresh):
    """A run on one device."""
    recipe, config, splits = fresh()
    workdir = tmp_path_factory.mktemp("one") / "run"
    return workdir, run(recipe, with_settings(config, ONE), splits, workdir)


def assert_same_run(ours, theirs, workdir, other):
    np.testing.assert_allclose(losses(workdir), losses(other), rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours[0], theirs[0])
    assert ours[1]["selected_step"] == theirs[1]["selected_step"]


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 8)])
def test_every_device_has_rows_of_its_own(shape):
    x = np.arange(16)
    rows = put_batch({"x": x}, create_mesh(8, *shape))["x"]
    found = [np.asarray(shard.data) for shard in rows.addressable_shards]
    assert [len(part) for part in found] == [2] * 8
    np.testing.assert_array_equal(sorted(np.concatenate(found)), x)


@pytest.mark.parametrize("rows", [4, 300_000], ids=["small", "large"])
def test_a_batch_arrives_as_it_was_and_where_it_belongs(rows):
    batch = {
        "x": np.arange(rows, dtype=np.float32),
        "id": np.arange(rows, dtype=np.uint32),
        "mask": np.arange(rows) > 1,
    }
    mesh = create_mesh(1)
    with jax.transfer_guard("disallow"):
        found = put_batch(batch, mesh)
    for name, values in batch.items():
        assert found[name].dtype == values.dtype and found[name].sharding == batch_sharding(mesh)
        np.testing.assert_array_equal(found[name], values)


def test_a_small_batch_keeps_no_hold_of_the_hosts_memory():
    values = np.arange(64, dtype=np.float32)
    found = put_batch({"x": values}, create_mesh(1))["x"]
    values[:] = -1
    np.testing.assert_array_equal(found, np.arange(64))


def test_a_split_run_is_that_of_one_device(recipe, config, splits, one, tmp_path):
    ours = run(recipe, with_settings(config, SPLIT), splits, tmp_path / "run")
    assert_same_run(ours, one[1], tmp_path / "run", one[0])


def test_a_split_run_in_microbatches_is_that_of_one_device(recipe, config, splits, one, tmp_path):
    ours = run(recipe, with_settings(config, {**SPLIT, "accumulate": 2}), splits, tmp_path / "run")
    assert_same_run(ours, one[1], tmp_path / "run", one[0])


@pytest.mark.parametrize("before, after", [(SPLIT, TWO), pytest.param(ONE, SPLIT, marks=pytest.mark.slow)])
def test_a_killed_run_continues_on_other_devices(recipe, config, splits, one, tmp_path, monkeypatch, before, after):
    plain = config.copy_and_resolve_references()
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            run(recipe, with_settings(config, before), splits, tmp_path / "run")
    ours = run(recipe, with_settings(plain, after), splits, tmp_path / "run")
    assert_same_run(ours, one[1], tmp_path / "run", one[0])


@pytest.fixture
def compiled(recipe, config, batch):
    """A function: settings -> (the state as it is born, the compiled step of the first phase, its next state)."""

    def compile_step(settings):
        with_settings(config, settings)
        mesh = create_mesh(config.devices, **config.mesh)
        placement = create_placement(recipe, config, mesh, 3)
        split = gathering(recipe, placement)
        create = lambda key: create_state(split, config, 3, key)  # noqa: E731
        state = jax.jit(create, out_shardings=placement.state)(jax.random.key(0))
        constants = jax.device_put(split.constants, placement.constants)
        rows = jax.device_put(batch, batch_sharding(mesh))
        step = jax.jit(
            create_train_step(split, config, parameter_labels(split)),
            static_argnames="phase",
            out_shardings=(placement.state, replicated(mesh)),
        )
        with jax.set_mesh(mesh):
            step = step.lower(state, constants, rows, phase=0).compile()
        return state, constants, step, step(state, constants, rows)[0]

    return compile_step


def test_parameters_moments_and_teachers_are_split_from_birth(compiled):
    state, constants, _, after = compiled({**SPLIT, "ema.decay": 0.9})
    for now in (state, after):
        moments = {name: now.optimizer.inner_states[name].inner_state[1] for name in ("backbone", "head", "adapters")}
        for tree in (now.params, moments["backbone"].mu, moments["backbone"].nu):
            assert shard_shapes(tree["backbone"]["w"]) == {(3, 4)}
        for tree in (now.params, moments["adapters"].mu, moments["adapters"].nu):
            assert shard_shapes(tree["adapters"]["a"]) == shard_shapes(tree["adapters"]["b"]) == {(2, 4)}
        for tree in (now.params, moments["head"].mu):  # of 12 elements: too small
            assert shard_shapes(tree["head"]["w"]) == {(4, 3)}
        average = now.average["params"]
        assert shard_shapes(average["backbone"]["w"]) == {(3, 4)} and shard_shapes(average["head"]["w"]) == {(4, 3)}
        assert shard_shapes(now.stats["mean"]) == {(4,)}
    assert shard_shapes(constants["a"]["features"]) == {(3, 4)}
    assert shard_shapes(constants["a"]["logits"]) == {(4, 3)}


def test_collectives_of_a_whole_and_of_a_split_step(compiled):
    *_, step, _ = compiled({})
    assert set(find_collectives(step.as_text())) == {"all-reduce"}
    *_, step, _ = compiled(SPLIT)
    found = find_collectives(step.as_text())
    # Backbone, two adapters and the features of two teachers are gathered, each once; float32.
    assert found.pop("all-gather") == {"count": 5, "bytes": 4 * (3 * 6 * 4 + 2 * 4 * 4)}
    assert set(found) <= {"all-reduce", "reduce-scatter"}


def test_an_array_is_gathered_and_its_cotangent_is_not():
    mesh = create_mesh(8, 4, 2)
    split = {"w": NamedSharding(mesh, P("fsdp")), "b": replicated(mesh)}
    tree = jax.device_put({"w": jnp.ones((8, 4)), "b": jnp.ones((4,))}, split)
    seen, gradient = jax.jit(lambda t: (whole(t, split), jax.grad(lambda t: (whole(t, split)["w"] ** 2).sum())(t)))(
        tree
    )
    assert shard_shapes(seen["w"]) == {(8, 4)} and shard_shapes(gradient["w"]) == {(4, 4)}
    np.testing.assert_array_equal(gradient["w"], 2 * np.ones((8, 4)))


def test_without_rules_nothing_is_wrapped(recipe, config):
    placement = create_placement(recipe, with_settings(config, {"mesh.fsdp": 4}), create_mesh(8, fsdp=4), 3)
    assert gathering(recipe, placement) is recipe


def test_the_largest_dimension_that_divides_is_split():
    shapes = {"conv": (3, 3, 8, 16), "square": (8, 8), "long": (10, 8), "odd": (7, 9), "empty": (0, 4), "small": (8,)}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    section = ConfigDict({"state": ((".*", "fsdp"),), "min_size": 60})
    found = {name: sharding.spec for name, sharding in place_tree(tree, section, "state", create_mesh(8, 2, 4)).items()}
    assert found == {
        "conv": P(None, None, None, "fsdp"),
        "square": P("fsdp"),
        "long": P(None, "fsdp"),
        "odd": P(),
        "empty": P(),
        "small": P(),
    }


def test_the_first_rule_that_matches_counts():
    tree = {"a": {"w": jnp.zeros((8, 8)), "v": jnp.zeros((8, 8))}}
    section = ConfigDict({"state": ((".*/w", "replicate"), ("a/.*", "fsdp")), "min_size": 0})
    found = place_tree(tree, section, "state", create_mesh(8, fsdp=8))
    assert (found["a"]["w"].spec, found["a"]["v"].spec) == (P(), P("fsdp"))


def test_a_moment_lies_where_its_parameter_does_though_paths_end_alike():
    shapes = {"w": (8, 4), "a": {"w": (4, 8), "b": {"w": (16, 2)}}}
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    mesh = create_mesh(8, 4, 2)
    places = {"w": P("fsdp"), "a": {"w": P(None, "fsdp"), "b": {"w": P()}}}
    shardings = jax.tree.map(lambda p: NamedSharding(mesh, p), places)
    state = {"mu": params, "count": jnp.zeros(()), "w": jnp.zeros((3,))}  # `w` ends like a parameter, and is none
    found = jax.tree.map(lambda s: s.spec, place_optimizer(state, params, shardings, replicated(mesh)))
    assert found == {"mu": places, "count": P(), "w": P()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sharding.state": (("backbon/.*", "fsdp"),)},
            r"state\[0\], 'backbon/\.\*', matches no parameter. Some: adap",
        ),
        ({"sharding.state": (("w", "fsdp"),)}, "matches no parameter"),  # the whole path, not its end
        ({"sharding.state": ((".*", "fsdp"), ("head/.*", "replicate"))}, r"state\[1\].*rules before it take; put it"),
        ({"sharding.state": ((".*", "fdsp"),)}, "no tactic 'fdsp'. Did you mean 'fsdp'"),
        ({"sharding.state": (("head/(", "fsdp"),)}, "'head/\\(' is no regular expression"),
        ({"sharding.state": ("head/.*", "fsdp")}, "write a tuple of rules"),
        ({"sharding.state": ((".*",),)}, "a rule is a pair"),
        (
            {"sharding.teachers": (("student/.*", "fsdp"),)},
            r"config.sharding.teachers\[0\], 'student/\.\*', matches no",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(recipe, config, settings, message):
    with_settings(config, settings)
    with pytest.raises(InputError, match=message):
        create_placement(recipe, config, create_mesh(8, fsdp=2), 3)


def test_a_rule_for_teachers_where_there_are_none_is_refused(recipe, config):
    with_settings(config, {"sharding.teachers": ((".*", "fsdp"),)})
    with pytest.raises(InputError, match="no teacher comes from a file"):
        create_placement(dataclasses.replace(recipe, constants={}), config, create_mesh(8, fsdp=2), 3)


def test_an_axis_takes_what_the_other_leaves():
    assert dict(create_mesh(8).shape) == {"data": 8, "fsdp": 1}
    assert dict(create_mesh(0, fsdp=2).shape) == {"data": 4, "fsdp": 2}
    assert dict(create_mesh(8, data=2, fsdp=0).shape) == {"data": 2, "fsdp": 4}
    assert dict(create_mesh(6, data=3, fsdp=2).shape) == {"data": 3, "fsdp": 2}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((8, 0, 3), "data=0 and fsdp=3, which does not make up 8 devices"),
        ((0, 4, 1), "data=4 and fsdp=1, which does not make up 8 devices"),
        ((8, 0, 0), "data=0 and fsdp=0"),
        ((8, -2, -4), "data=-2 and fsdp=-4"),
        ((8, 0, 16), "fsdp=16"),
        ((9, 0, 1), "config.devices is 9, but there are 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(axes, message):
    with pytest.raises(InputError, match=message):
        create_mesh(*axes)


def test_a_batch_must_divide_over_both_axes():
    with pytest.raises(InputError, match="A batch of 12 does not divide over 8 devices; set config.batch_size to 8 or"):
        check_batch_size(12, create_mesh(8, 4, 2))
