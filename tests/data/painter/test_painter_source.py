"""The source of painted faces: Examples that obey their contract, and options that are checked."""

import threading

import ml_collections
import numpy as np
import pytest
from same_examples import assert_same_examples

from emokd.data.painter.paint import paint
from emokd.data.painter.signals import physiology, sound
from emokd.data.painter.state import EXPRESSIONS, IDENTITIES, SCENES
from emokd.data.sources.painter import load
from emokd.errors import InputError

SMALL = {"size": 20, "train": 30, "validation": 6, "test": 8, "seed": 4}


def test_examples_are_those_of_the_painter():
    examples = load(None, ml_collections.ConfigDict(SMALL))
    assert "synthetic" in examples.name
    assert len(examples) == len(set(examples.keys)) == len(np.unique(examples.ids)) == 44
    assert examples.splits.tolist() == ["train"] * 30 + ["validation"] * 6 + ["test"] * 8
    assert examples.classes == {"expression": EXPRESSIONS, "identity": IDENTITIES, "scene": SCENES}
    for i, index in ((0, 0), (29, 29), (30, 2**32), (43, 2**33 + 7)):
        painted = paint(4, index, 20)
        np.testing.assert_array_equal(examples.inputs["image"](i), painted["image"])
        for name in ("expression", "identity", "scene"):
            assert examples.columns[name][i] == painted[name] and examples.columns[name].dtype == np.int32
        np.testing.assert_array_equal(examples.columns["valence_arousal"][i], painted["valence_arousal"])
        assert examples.groups[i] == IDENTITIES[painted["identity"]]


def test_a_larger_split_changes_no_other_example():
    small, large = load("", SMALL), load("", {**SMALL, "train": 50})
    rows = [i for i in range(len(large)) if not 30 <= i < 50]
    assert large.select(rows).keys == small.keys
    assert_same_examples(large.select(rows), small)
    np.testing.assert_array_equal(large.inputs["image"](50), small.inputs["image"](30))


def test_other_inputs_change_no_pixel_and_come_from_the_same_example():
    every = load(None, {**SMALL, "inputs": ("image", "physiology", "audio")})
    plain = load(None, SMALL)
    assert set(plain.inputs) == {"image"} and set(every.inputs) == {"image", "physiology", "audio"}
    assert_same_examples(every, plain)
    np.testing.assert_array_equal(every.inputs["image"](33), plain.inputs["image"](33))
    np.testing.assert_array_equal(every.inputs["physiology"](33), physiology(4, 2**32 + 3))
    np.testing.assert_array_equal(every.inputs["audio"](33), sound(4, 2**32 + 3))
    assert set(load(None, {**SMALL, "inputs": "audio"}).inputs) == {"audio"}


def test_content_differs_between_examples_seeds_and_sizes():
    contents = [load(None, {**SMALL, **change}).content(3) for change in ({}, {"seed": 5}, {"size": 21})]
    contents += [load(None, SMALL).content(i) for i in (3, 4, 33)]
    assert contents[0] == contents[3] and len(set(contents)) == 5


def test_another_seed_is_another_data_set_with_other_keys():
    first, second = load(None, SMALL), load(None, {**SMALL, "seed": 5})
    assert not set(first.keys) & set(second.keys)
    assert not np.array_equal(first.columns["valence_arousal"], second.columns["valence_arousal"])


def test_threads_read_the_same_pictures():
    examples = load(None, SMALL)
    expected = [examples.inputs["image"](i) for i in range(12)]
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: examples.inputs["image"](i)})) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, image in enumerate(expected):
        np.testing.assert_array_equal(found[i], image)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sise": 32}, r"no key 'sise'.*Did you mean 'size'"),
        ({"size": 8}, r"size is 8.*from 16 to"),
        ({"size": 32.5}, r"size is 32.5.*whole number"),
        ({"train": 0}, r"train is 0"),
        ({"test": -1}, r"test is -1"),
        ({"seed": True}, r"seed is True"),
        ({"seed": -3}, r"seed is -3"),
        ({"inputs": ("image", "sound")}, r"names 'sound'.*audio"),
        ({"inputs": ()}, r"inputs is empty"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        load(None, options)


def test_a_split_may_be_left_out():
    assert set(load(None, {**SMALL, "validation": 0, "test": 0}).splits) == {"train"}
