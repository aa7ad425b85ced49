import dataclasses
import gc
import json
import logging
import re
import zipfile

import numpy as np
import pytest
from absl import logging as absl_logging
from PIL import Image

from emokd.data import canvases, sources
from emokd.data.canvases import BadImages
from emokd.data.decode import DecodeError, to_canvas
from emokd.data.examples import Examples, Rows
from emokd.data.pipeline import epoch_order, evaluation_batches, train_batches
from emokd.errors import InputError
from emokd.labels import UNLABELLED

SIZE = 6


def make(n, name="made", bad=(), calls=None, **changes):
    """n pictures of different sizes and colours, with every kind of column."""
    rng = np.random.default_rng(len(name))

    def read(i):
        if calls is not None:
            calls.append(i)
        if i in bad:
            raise DecodeError(f"{name}{i}.jpg is torn.")
        return np.random.default_rng([i, len(name)]).integers(0, 256, (5 + i % 4, 9 - 3 * (i % 4 == 1), 3), np.uint8)

    votes = rng.random((n, 3)).astype(np.float32)
    fields = {
        "name": name,
        "keys": [f"{name}{i}.jpg" for i in range(n)],
        "columns": {
            "expression": rng.integers(0, 3, n).astype(np.int32),
            "votes": votes / votes.sum(1, keepdims=True),
            "valence_arousal": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "identity": np.arange(n, dtype=np.int32),
        },
        "classes": {"expression": ("a", "b", "c"), "identity": tuple(map(str, range(n)))},
        "inputs": {"image": read},
        "content": str,
    }
    return Examples(**(fields | changes))


def train(examples, **options):
    return train_batches(examples, **({"batch_size": 4, "seed": 3, "canvas": SIZE, "fit": "crop"} | options))


def evaluate(examples, **options):
    return evaluation_batches(examples, **({"batch_size": 4, "canvas": SIZE, "fit": "crop"} | options))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype, name
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def test_order_of_an_epoch_is_fixed_for_ever():
    """These lists may change only in a release that says that old runs no longer resume in the same order."""
    assert epoch_order(10, 0, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert epoch_order(10, 0, 1).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert epoch_order(10, 1, 0).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]


def test_order_of_an_epoch_is_a_fair_permutation():
    orders = np.array([epoch_order(7, 5, epoch) for epoch in range(3000)])
    np.testing.assert_array_equal(np.sort(orders, 1), np.tile(np.arange(7), (3000, 1)))
    counts = np.array([(orders == i).sum(0) for i in range(7)])
    chi_squared = ((counts - 3000 / 7) ** 2 / (3000 / 7)).sum()
    assert chi_squared < 36 + 5 * (2 * 36) ** 0.5


def test_stream_is_a_function_of_seed_epoch_and_index():
    examples = make(10)
    batches = take(train(examples), 8)
    identity, view, ids = (joined(batches, name) for name in ("identity", "view", "id"))
    for i in range(32):
        expected = epoch_order(10, 3, i // 10)[i % 10]
        assert identity[i] == expected
        assert view[i] == i // 10
        assert ids[i] == examples.ids[expected]
    for epoch in range(3):
        assert sorted(identity[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_rows_hold_their_pictures_and_targets():
    examples = make(9)
    for batch in take(train(examples, fit="pad"), 3):
        assert batch.keys() == {"image", "id", "check", "view", "mask", *examples.columns}
        assert batch["image"].shape == (4, SIZE, SIZE, 3) and batch["image"].dtype == np.uint8
        assert [batch[name].dtype for name in ("id", "view", "mask")] == [np.uint32, np.int32, bool]
        assert batch["mask"].all()
        for row, i in enumerate(batch["identity"]):
            np.testing.assert_array_equal(batch["image"][row], to_canvas(examples.inputs["image"](i), SIZE, "pad"))
            for name, values in examples.columns.items():
                np.testing.assert_array_equal(batch[name][row], values[i])


def test_views_begin_where_they_are_told_and_resume_there():
    late = take(train(make(5), first_view=7), 10)
    np.testing.assert_array_equal(joined(late, "view"), 7 + np.arange(40) // 5)
    np.testing.assert_array_equal(
        joined(take(train(make(5), first_view=1, views=2), 10), "view"), (1 + np.arange(40) // 5) % 2
    )
    assert_same(take(train(make(5), first_view=7, start=4), 6), late[4:])
    without = [{name: batch[name] for name in batch if name != "view"} for batch in late]
    plain = [{name: batch[name] for name in batch if name != "view"} for batch in take(train(make(5)), 10)]
    assert_same(without, plain)


def test_views_cycle():
    views = joined(take(train(make(5), views=2), 10), "view")
    np.testing.assert_array_equal(views, np.arange(40) // 5 % 2)


@pytest.mark.parametrize("num_threads", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_resumes_bit_for_bit(num_threads, after):
    straight = take(train(make(7)), 9)
    iterator = train(make(7), num_threads=num_threads)
    take(iterator, after)
    state = json.loads(json.dumps(iterator.get_state()))
    take(iterator, 2)  # What comes after the state was taken leaves no trace in it.
    fresh = train(make(7), num_threads=num_threads)
    fresh.set_state(state)
    assert_same(take(fresh, 9 - after), straight[after:])


def test_start_is_absolute():
    straight = take(train(make(7)), 8)
    late = train(make(7), start=5)
    assert_same(take(late, 2), straight[5:7])
    elsewhere = train(make(7), start=2)
    elsewhere.set_state(late.get_state())
    assert_same(take(elsewhere, 1), straight[7:])


def test_two_processes_make_the_rows_of_one():
    alone = take(train(make(10)), 6)
    halves = [take(train(make(10), process_index=p, process_count=2), 6) for p in range(2)]
    together = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    assert_same(together, alone)
    alone = list(evaluate(make(10)))
    halves = [list(evaluate(make(10), process_index=p, process_count=2)) for p in range(2)]
    together = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    assert_same(together, alone)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8])
def test_evaluation_gives_every_example_once_and_pads(n):
    examples = make(n)
    batches = list(evaluate(examples, view=2))
    assert len(batches) == -(-n // 4)
    assert all(len(values) == 4 for batch in batches for values in batch.values())
    mask = joined(batches, "mask")
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < n)
    for name, values in examples.columns.items():
        np.testing.assert_array_equal(joined(batches, name)[mask], values)
    np.testing.assert_array_equal(joined(batches, "id")[mask], examples.ids)
    assert (joined(batches, "view") == 2).all()
    padding = {name: joined(batches, name)[~mask] for name in batches[0]}
    assert not padding["image"].any() and not padding["votes"].any()
    assert (padding["expression"] == UNLABELLED).all() and np.isnan(padding["valence_arousal"]).all()


@pytest.mark.parametrize("in_memory", [False, True])
def test_bad_pictures_are_masked_and_counted_once(in_memory):
    ledger = BadImages()
    examples = make(8, bad={2, 5})
    batches = take(train(examples, max_bad_fraction=0.25, bad_images=ledger, in_memory=in_memory), 8)
    mask = joined(batches, "mask")
    assert mask.sum() == 4 * 6
    assert set(joined(batches, "id")[~mask]) == {examples.ids[2], examples.ids[5]}
    assert not joined(batches, "image")[~mask].any()
    assert (joined(batches, "expression")[~mask] == UNLABELLED).all()
    assert np.isnan(joined(batches, "valence_arousal")[~mask]).all()
    assert set(ledger.reasons) == {"made: made2.jpg", "made: made5.jpg"} and len(ledger) == 2
    assert "torn" in ledger.reasons["made: made2.jpg"]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_too_many_bad_pictures_end_the_run(num_threads):
    bad = set(range(3, 18))
    iterator = train(make(20, bad=bad), max_bad_fraction=0.5, num_threads=num_threads)
    with pytest.raises(InputError) as caught:
        take(iterator, 5)
    message = str(caught.value)
    found = int(re.match(r"(\d+) of 20 pictures", message)[1])
    # Several threads may each find one more before the first of them reports.
    assert found == 11 if num_threads == 0 else 11 <= found <= 15
    assert "--config.data.max_bad_fraction" in message and f"and {found - 10} more" in message
    assert message.count("made: made") == 10
    with pytest.raises(InputError, match="1 of 20 pictures"):
        list(evaluate(make(20, bad={19}), num_threads=num_threads))


def test_each_set_has_its_own_limit_of_bad_pictures():
    """Of 20 to train on 2 are bad, of 10 to validate on 1, of 10 unlabelled ones 1: a tenth each, which is allowed."""
    parts = {name: make(n, name=name, bad=bad) for name, n, bad in (("first", 20, {3, 7}), ("second", 10, {4}))}
    extra = make(10, name="scraped", bad={9})
    ledger = BadImages({"validation split": parts["second"]})
    options = {"max_bad_fraction": 0.1, "bad_images": ledger, "num_threads": 0}
    take(train(parts["first"], extra=[extra], **options), 16)
    for _ in range(2):
        mask = joined(list(evaluate(parts["second"], **options)), "mask")
        assert mask.sum() == 9
    assert len(ledger) == 4
    few = parts["second"].select(np.array([4, 5]))
    assert joined(list(evaluate(few, part_of=parts["second"], **options)), "mask").sum() == 1
    with pytest.raises(
        InputError, match=r"^1 of 10 pictures of the validation split cannot be read.*: second: second4\.jpg\."
    ):
        list(evaluate(parts["second"], **(options | {"max_bad_fraction": 0.05})))


def test_a_clip_that_cannot_be_read_is_left_out_like_a_picture():
    def clip(i):
        if i in (0, 3):
            raise DecodeError(f"clip{i} is torn.")
        return np.full((2, 4, 4, 3), i, np.uint8)

    ledger = BadImages()
    examples = make(5, inputs={"video": clip})
    batches = list(evaluate(examples, max_bad_fraction=0.4, bad_images=ledger))
    np.testing.assert_array_equal(joined(batches, "mask")[:5], [False, True, True, False, True])
    np.testing.assert_array_equal(joined(batches, "expression")[[0, 3]], UNLABELLED)
    np.testing.assert_array_equal(joined(batches, "video")[:5].max((1, 2, 3, 4)), [0, 1, 2, 0, 4])
    assert set(ledger.reasons) == {"made: made0.jpg", "made: made3.jpg"}
    with pytest.raises(InputError, match="2 of 5 pictures cannot be read"):
        list(evaluate(examples, max_bad_fraction=0.3, num_threads=0))
    with pytest.raises(DecodeError, match="all torn"):
        evaluate(make(2, inputs={"video": lambda i: (_ for _ in ()).throw(DecodeError("all torn"))}))


def test_files_that_cannot_be_read_count_like_pictures_that_cannot_be_decoded(tmp_path):
    """A dangling link, a pipe's place in a table, a member with a wrong checksum: not the end of a run by itself."""
    for place in ("a", "b"):
        (tmp_path / "set" / place).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(tmp_path / "set" / place / f"{i}.png")
    (tmp_path / "set" / "a" / "dangling.png").symlink_to("nowhere")
    (tmp_path / "set" / "b" / "garbage.png").write_bytes(b"garbage")
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.png")):
            if path.name != "dangling.png":
                archive.write(path, f"zipped/{path.parent.name}/{path.name}")
        archive.writestr("zipped/a/wrong.png", b"0123456789" * 9)
    content = (tmp_path / "zipped.zip").read_bytes()
    (tmp_path / "zipped.zip").write_bytes(content.replace(b"0123456789" * 9, b"0123456789" * 8 + b"012345678x"))
    for place, bad in (("set", "dangling"), ("zipped.zip", "wrong")):
        examples = sources.load("image_folder", str(tmp_path / place), {}, min_side=SIZE)
        assert len(examples.contents()) == 10
        ledger = BadImages()
        batches = list(evaluate(examples, max_bad_fraction=0.2, bad_images=ledger))
        assert joined(batches, "mask").sum() == 8
        assert sorted(name.split("/")[-1] for name in ledger.reasons) == sorted([f"{bad}.png", "garbage.png"])
        with pytest.raises(InputError, match=r"2 of 10 pictures cannot be read.*max_bad_fraction"):
            list(evaluate(examples, max_bad_fraction=0.1, num_threads=0))


def test_in_memory_gives_the_same_and_reads_each_picture_once():
    plain = take(train(make(6)), 6)
    calls = []
    examples = make(6, calls=calls)
    assert_same(take(train(examples, in_memory=True, num_threads=0), 6), plain)
    assert sorted(calls) == list(range(6))
    assert_same(take(train(examples, in_memory=True), 6), plain)
    assert_same(list(evaluate(examples, in_memory=True)), list(evaluate(make(6))))
    assert sorted(calls) == list(range(6))


def test_memory_is_announced_and_given_back(caplog):
    absl_logging.get_absl_logger().addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger="absl"):
            examples = make(6)
            iterator = train(examples, in_memory=True)
    finally:
        absl_logging.get_absl_logger().removeHandler(caplog.handler)
    assert f"{6 * SIZE * SIZE * 3} bytes" in caplog.text
    key = (id(examples), SIZE, "crop")
    assert key in canvases._kept
    iterator.close()
    del examples, iterator
    gc.collect()
    assert key not in canvases._kept


def test_extra_examples_are_unlabelled():
    labelled, extra = make(6), make(5, name="scraped")
    batches = take(train(labelled, extra=[extra]), 11)
    ids = joined(batches, "id")
    for epoch in range(4):
        assert set(ids[11 * epoch : 11 * epoch + 11]) == {*labelled.ids, *extra.ids}
    of_extra = np.isin(ids, extra.ids)
    assert joined(batches, "mask").all()
    assert (joined(batches, "expression")[of_extra] == UNLABELLED).all()
    assert (joined(batches, "identity")[of_extra] == UNLABELLED).all()
    assert np.isnan(joined(batches, "valence_arousal")[of_extra]).all()
    assert not joined(batches, "votes")[of_extra].any()
    assert set(joined(batches, "identity")[~of_extra]) == set(range(6))
    place = {id_: i for i, id_ in enumerate(extra.ids)}
    for image, id_ in zip(joined(batches, "image")[of_extra], ids[of_extra], strict=True):
        np.testing.assert_array_equal(image, to_canvas(extra.inputs["image"](place[id_]), SIZE, "crop"))


def test_other_inputs_are_stacked_under_their_names():
    traces = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    inputs = {"physiology": lambda i: traces[i], "features/audio": lambda i: traces[i, :2]}
    examples = make(5, inputs=inputs)
    for batch in take(train(examples), 3):
        assert "image" not in batch
        np.testing.assert_array_equal(batch["physiology"], traces[batch["identity"]])
        np.testing.assert_array_equal(batch["features/audio"], traces[batch["identity"], :2])
    last = list(evaluate(examples))[-1]
    np.testing.assert_array_equal(last["physiology"][1:], np.zeros((3, 11), np.float32))


def test_rows_of_an_array_are_what_is_read_one_by_one():
    table = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    order = np.array([4, 0, 7, 2, 8, 1])
    labelled, extra = make(9, inputs={"x": Rows(table)}), make(5, name="scraped", inputs={"x": Rows(table[::-1])})
    chosen = labelled.select(order).select(np.array([5, 3, 0, 1]))
    one_by_one = [
        dataclasses.replace(part, inputs={"x": lambda i, part=part: part.inputs["x"](i)}) for part in (chosen, extra)
    ]
    np.testing.assert_array_equal(chosen.inputs["x"](1), table[2])
    assert_same(take(train(chosen, extra=[extra]), 9), take(train(one_by_one[0], extra=[one_by_one[1]]), 9))
    assert_same(list(evaluate(extra, batch_size=3)), list(evaluate(one_by_one[1], batch_size=3)))
    assert not list(evaluate(extra, batch_size=3))[-1]["x"][-1].any()
    wider = make(5, name="scraped", inputs={"x": Rows(np.zeros((5, 4), np.float32))})
    with pytest.raises(InputError, match=r"the x of scraped\d\.jpg is float32 \(4,\)"):
        take(train(chosen, extra=[wider]), 9)


def test_traces_of_different_lengths_are_refused():
    examples = make(5, inputs={"audio": lambda i: np.zeros(7 + (i == 3), np.float32)})
    with pytest.raises(InputError, match=r"the audio of made3\.jpg is float32 \(8,\)"):
        list(evaluate(examples))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 7}, "larger than the 6 training examples"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 5, "process_count": 2}, "cannot be divided evenly among 2"),
        ({"process_index": 2, "process_count": 2}, "no process 2 among 2"),
        ({"seed": -1}, "seed is -1"),
        ({"views": -2}, "data.views is -2"),
        ({"start": -1}, "start is -1"),
        ({"fit": "croq"}, "Did you mean 'crop'"),
        ({"canvas": 0}, "data.canvas is 0"),
        ({"num_threads": -1}, "data.num_threads is -1"),
        ({"max_bad_fraction": 1.5}, "data.max_bad_fraction is 1.5"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        train(make(6), **options)


def test_names_must_not_collide():
    with pytest.raises(InputError, match="'mask' cannot name a target"):
        train(make(5, columns={"mask": np.zeros(5, np.int32)}))
    with pytest.raises(InputError, match="'audio' cannot name a target"):
        train(make(5, columns={"audio": np.zeros(5, np.int32)}, inputs={"audio": np.zeros}))
    with pytest.raises(InputError, match="scraped has no input 'image'"):
        train(make(5), extra=[make(5, name="scraped", inputs={})])
