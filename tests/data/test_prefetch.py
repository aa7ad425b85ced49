import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from emokd.data.pipeline import to_device
from emokd.errors import InputError


def numbers(length=100):
    dataset = grain.MapDataset.range(length).map(lambda i: {"x": np.full(3, i, np.int32)})
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def values(iterator, count):
    return [int(next(iterator)["x"][0]) for _ in range(count)]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_gives_every_batch_in_order_on_the_device(depth):
    batches = list(to_device(numbers(7), jax.device_put, depth=depth))
    assert [int(batch["x"][0]) for batch in batches] == list(range(7))
    assert all(isinstance(batch["x"], jax.Array) for batch in batches)


def test_transfers_ahead():
    sent = []
    iterator = to_device(iter(range(10)), lambda batch: sent.append(batch) or batch, depth=3)
    assert sent == []
    assert next(iterator) == 0 and sent == [0, 1, 2]
    assert next(iterator) == 1 and sent == [0, 1, 2, 3]


@pytest.mark.parametrize("taken", [0, 1, 4])
@pytest.mark.parametrize("depth", [1, 3])
def test_state_is_that_of_the_last_batch_handed_out(taken, depth):
    iterator = to_device(numbers(), jax.device_put, depth=depth)
    assert values(iterator, taken) == list(range(taken))
    state = iterator.get_state()
    values(iterator, 3)
    other = to_device(numbers(), jax.device_put, depth=depth)
    values(other, 2)
    other.set_state(state)
    assert other.get_state() == state
    assert values(other, 3) == [taken, taken + 1, taken + 2]
    iterator.set_state(state)
    assert values(iterator, 3) == [taken, taken + 1, taken + 2]


def test_resumes_after_its_end():
    iterator = to_device(numbers(3), jax.device_put)
    state = iterator.get_state()
    assert len(list(iterator)) == 3
    with pytest.raises(StopIteration):
        next(iterator)
    iterator.set_state(state)
    assert len(list(iterator)) == 3


def test_grain_saves_and_restores_it_through_orbax(tmp_path):
    iterator = to_device(numbers(), jax.device_put, depth=3)
    values(iterator, 4)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=grain.checkpoint.CheckpointSave(iterator))
        manager.wait_until_finished()
        other = to_device(numbers(), jax.device_put, depth=3)
        manager.restore(0, args=grain.checkpoint.CheckpointRestore(other))
    assert values(other, 2) == [4, 5]


def test_a_failing_source_is_not_hidden():
    def source():
        yield 1
        raise InputError("bad row 2")

    with pytest.raises(InputError, match="bad row 2"):
        list(to_device(source(), str))


def test_depth_must_be_positive():
    with pytest.raises(InputError, match="at least 1"):
        to_device(iter([1]), str, depth=0)
