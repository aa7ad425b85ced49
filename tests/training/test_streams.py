"""The streams of a run: no phase sees another's views, and each split has its own count of bad pictures."""

import numpy as np
import pytest

from emokd.configuration import defaults
from emokd.data.decode import DecodeError
from emokd.data.examples import Examples
from emokd.data.pipeline import epoch_order
from emokd.errors import InputError
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams

N, BATCH = 6, 4


def make(name="made", bad=()):
    def read(i):
        if i in bad:
            raise DecodeError(f"{name}{i}.png is torn.")
        return np.full((8, 8, 3), i, np.uint8)

    keys = [f"{name}{i}.png" for i in range(N)]
    columns = {"expression": np.arange(N, dtype=np.int32) % 2}
    return Examples(name, keys, columns, {"expression": ("a", "b")}, {"image": read}, content=str)


@pytest.fixture
def config():
    config = defaults.run("supervised")
    config.batch_size, config.data.canvas, config.data.num_threads = BATCH, 8, 0
    return config


def seen(config, phase, batches=6):
    """(id, view) of the first batches of a phase, in order."""
    stream = Streams(config, create_mesh(1)).training(make(), (), phase)
    found = [next(stream) for _ in range(batches)]
    return [(int(i), int(v)) for b in found for i, v in zip(np.asarray(b["id"]), np.asarray(b["view"]), strict=True)]


def test_no_phase_repeats_a_view_of_another(config):
    phases = [seen(config, phase) for phase in range(4)]
    assert all(len(set(pairs)) == len(pairs) for pairs in phases)
    assert len(set().union(*phases)) == sum(map(len, phases))
    assert {view for _, view in phases[0]} == {0, 1, 2, 3}
    assert seen(config, 2) == phases[2]
    config.data.views = 3
    assert [[view for _, view in seen(config, phase)][: N + 1] for phase in range(4)] == [
        [0] * N + [1], [1] * N + [2], [2] * N + [0], [0] * N + [1],
    ]  # fmt: skip


def test_orders_of_the_phases_are_fixed(config):
    """The order of phase p is that of seed * 1009 + p, whatever its views are called."""
    ids, config.seed = make().ids, 3
    for phase in (0, 1, 3):
        expected = [int(ids[i]) for epoch in range(4) for i in epoch_order(N, 3 * 1009 + phase, epoch)]
        assert [i for i, _ in seen(config, phase)] == expected


def test_a_phase_resumes_with_its_views(config):
    streams = Streams(config, create_mesh(1))
    straight = streams.training(make(), (), 2)
    for _ in range(3):
        next(straight)
    resumed = streams.training(make(), (), 2)
    resumed.set_state(straight.get_state())
    np.testing.assert_array_equal(np.asarray(next(resumed)["view"]), np.asarray(next(straight)["view"]))


def test_bad_pictures_of_training_do_not_count_against_other_splits(config):
    """At a limit of a sixth one bad picture of six is allowed in each split; one more names the split."""
    config.data.max_bad_fraction = 1 / 6
    splits = {"train": make("t", {1}), "validation": make("v", {2}), "test": make("e", {0, 5})}
    streams = Streams(config, create_mesh(1), splits=splits)
    stream = streams.training(splits["train"], (), 0)
    for _ in range(4):
        next(stream)
    for _ in range(2):
        rows = [np.asarray(batch["mask"]).sum() for batch in streams.evaluation(splits["validation"])]
        assert sum(rows) == N - 1
    few = splits["validation"].select(np.array([2, 3]))
    (batch,) = streams.evaluation(few, part_of=splits["validation"])
    assert np.asarray(batch["mask"]).tolist() == [False, True, False, False]
    with pytest.raises(
        InputError, match=r"2 of 6 pictures of the test split cannot be read.*: e: e0\.png, e: e5\.png\."
    ):
        list(streams.evaluation(splits["test"]))


def test_the_names_of_a_batch_are_those_that_the_stream_gives(config):
    """Also of extra sets, and across the ends of epochs."""
    sets = [make(), make("one"), make("two")]
    names = {int(i): key for each in sets for i, key in zip(each.ids, each.keys, strict=True)}
    for phase in (0, 2):
        streams = Streams(config, create_mesh(1))
        stream = streams.training(sets[0], sets[1:], phase)
        for batch in range(10):
            ids = np.asarray(next(stream)["id"]).tolist()
            assert streams.names(sets[0], sets[1:], phase, batch) == [names[i] for i in ids]
