"""Splits by fractions, and those that a data set prescribes: strata, copies, and what is refused."""

import math
from collections import Counter

import numpy as np
import pytest
from splits_setup import FRACTIONS, check_partition, keys_of, make, toy

from emokd.data.division.duplicates import find_duplicates
from emokd.data.division.splits import normalise_split, split
from emokd.errors import InputError
from emokd.labels import UNLABELLED


def permuted(labels, keys, order):
    return make(np.asarray(labels)[order], [keys[i] for i in order])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "fractions", [FRACTIONS, {"train": 0.8, "test": 0.2}, {"train": 0.34, "val": 0.33, "test": 0.33}]
)
def test_disjoint_covering_and_stratified_within_one(fractions, seed):
    labels = toy(seed=seed)
    examples = make(labels)
    parts = split(examples, fractions, seed)
    check_partition(examples, parts)
    for name, share in fractions.items():
        count = Counter(parts[normalise_split(name)].columns["expression"].tolist())
        for label, n in Counter(labels.tolist()).items():
            assert abs(count[label] - share * n) <= 1


def test_columns_follow_their_keys():
    labels = toy()
    for part in split(make(labels), FRACTIONS, 0).values():
        assert [labels[int(key.removeprefix("picture"))] for key in part.keys] == part.columns["expression"].tolist()


def test_the_order_of_examples_and_of_fractions_does_not_matter():
    labels, keys = toy(), [f"k{i}" for i in range(230)]
    expected = keys_of(split(make(labels, keys), FRACTIONS, 3))
    reversed_fractions = dict(reversed(FRACTIONS.items()))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(230)
        assert keys_of(split(permuted(labels, keys, order), reversed_fractions, 3)) == expected


def test_seeds_differ_and_repeat():
    examples = make(toy())
    assert keys_of(split(examples, FRACTIONS, 0)) == keys_of(split(examples, FRACTIONS, 0))
    assert keys_of(split(examples, FRACTIONS, 0)) != keys_of(split(examples, FRACTIONS, 1))


def test_a_new_example_moves_at_most_one_other_over_each_cut_and_no_other_class():
    labels = toy(120).tolist()
    keys = [f"k{i}" for i in range(120)]
    before = keys_of(split(make(labels, keys), FRACTIONS, 0))
    for new in range(40):
        label = new % 3
        after = keys_of(split(make([*labels, label], [*keys, f"new{new}"]), FRACTIONS, 0))
        moved = {key for name in before for key in before[name] - after[name]}
        assert len(moved) <= 2
        assert {labels[keys.index(key)] for key in moved} <= {label}


def test_duplicates_stay_together():
    rng = np.random.default_rng(0)
    labels = toy(300)
    contents = [f"c{value}" for value in rng.integers(0, 200, 300)]
    examples = make(labels, contents=contents)
    for parts in (split(examples, FRACTIONS, 0), split(examples, FRACTIONS, 0, folds=5, fold=1)):
        check_partition(examples, parts)
        homes = {}
        for name, part in parts.items():
            for i in range(len(part)):
                assert homes.setdefault(part.content(i), name) == name


def test_duplicates_and_conflicts_are_found(caplog):
    examples = make([0, 0, 1, 2, 0, UNLABELLED], contents=["a", "a", "b", "b", "c", "c"])
    duplicates = find_duplicates(examples)
    assert sorted(duplicates.sets) == [(0, 1), (2, 3), (4, 5)]
    assert duplicates.conflicting == ((2, 3),)
    with caplog.at_level("WARNING"):
        split(make([0] * 10 + [1] * 10, contents=["a"] * 2 + [str(i) for i in range(17)] + ["a"]), FRACTIONS, 0)
    assert "picture0 = picture1 = picture19" in caplog.text


def test_conflicts_of_votes_and_valence():
    votes = np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]], np.float32)
    columns = {"votes": votes}
    examples = make([0] * 4, contents=list("aabb"), columns=columns, classes=("x", "y"))
    assert find_duplicates(examples).conflicting == ((2, 3),)
    columns = {"valence_arousal": np.array([[0, 0], [np.nan, 0], [0, 0], [0.5, 0]], np.float32)}
    assert find_duplicates(make([0] * 4, contents=list("aabb"), columns=columns)).conflicting == ((2, 3),)


def test_the_test_split_picks_no_epoch_where_there_is_a_validation_split_or_no_test_split():
    named = make(toy(30), splits=np.array(["train", "validation", "test"] * 10))
    with pytest.raises(InputError, match=r"toy prescribes a validation split.*validation_is_test to False"):
        split(named, FRACTIONS, 0, validation_is_test=True)
    with pytest.raises(InputError, match="validation_is_test needs a test split"):
        split(make(toy()), {"train": 0.9, "validation": 0.1}, 0, validation_is_test=True)


def test_prescribed_splits_are_kept_and_validation_is_carved_from_train():
    labels = np.tile([0, 1, 2], 100)
    names = np.array(["Training"] * 240 + ["PrivateTest"] * 60)
    examples = make(labels, splits=names)
    parts = split(examples, FRACTIONS, 0)
    check_partition(examples, parts)
    assert parts["test"].keys == examples.keys[240:]
    assert Counter(parts["validation"].columns["expression"].tolist()) == {0: 10, 1: 10, 2: 10}
    assert set(split(examples, {"train": 0.8, "test": 0.2}, 0)) == {"train", "test"}
    complete = make(labels, splits=np.array(["train"] * 200 + ["dev"] * 40 + ["test"] * 60))
    assert [len(split(complete, FRACTIONS, 0)[name]) for name in ("train", "validation", "test")] == [200, 40, 60]
    ignored = split(examples, FRACTIONS, 0, use_prescribed=False)
    assert set(ignored["test"].keys) != set(examples.keys[240:])


def test_leaks_leave_the_earlier_split(caplog):
    contents = ["a", "b", "c", "d", "a", "b", "e", "b", "d"]
    names = np.array(["train"] * 5 + ["validation"] * 2 + ["test"] * 2)
    examples = make([0] * 9, contents=contents, splits=names, classes=("x",))
    with caplog.at_level("WARNING"):
        parts = split(examples, FRACTIONS, 0)
    assert {name: part.keys for name, part in parts.items()} == {
        "train": ["picture0", "picture2", "picture4"],
        "validation": ["picture6"],
        "test": ["picture7", "picture8"],
    }
    assert "left out: picture1, picture3, picture5" in caplog.text
    kept = split(examples, FRACTIONS, 0, keep_leaks=True)
    assert {name: len(part) for name, part in kept.items()} == {"train": 5, "validation": 2, "test": 2}
    with pytest.raises(InputError, match=r"'train' has an equal one.*config.data.split.keep_leaks"):
        split(make([0, 0], contents=["a", "a"], splits=np.array(["train", "test"]), classes=("x",)), FRACTIONS, 0)


def test_examples_without_a_prescribed_split_are_divided_and_follow_their_duplicates():
    labels = np.tile([0, 1, 2], 100)
    names = np.array(["train"] * 90 + ["test"] * 60 + [""] * 150)
    contents = [str(i) for i in range(300)]
    contents[200], contents[201] = contents[100], contents[10]  # one of test, one of train
    examples = make(labels, contents=contents, splits=names)
    parts = split(examples, FRACTIONS, 0)
    check_partition(examples, parts)
    home = {key: name for name, part in parts.items() for key in part.keys}
    assert {home[f"picture{i}"] for i in range(90)} == {"train", "validation"}
    assert {home[f"picture{i}"] for i in range(90, 150)} == {"test"}
    assert home["picture200"] == "test" and home["picture201"] == home["picture10"]
    count = Counter(home[f"picture{i}"] for i in range(150, 300))
    assert all(abs(count[name] - share * 150) <= 5 for name, share in FRACTIONS.items())
    only_test = make(labels, splits=np.array(["test"] * 60 + [""] * 240))
    parts = split(only_test, FRACTIONS, 0)
    check_partition(only_test, parts)
    assert abs(len(parts["train"]) - 0.7 * 240) <= 3 and len(parts["test"]) >= 60


def test_votes_and_valence_are_stratified():
    rng = np.random.default_rng(0)
    votes = rng.dirichlet([1, 1], 200).astype(np.float32)
    examples = make([0] * 200, columns={"votes": votes}, classes=("x", "y"))
    test = split(examples, FRACTIONS, 0)["test"]
    assert abs((test.columns["votes"].argmax(1) == 0).sum() - 0.2 * (votes.argmax(1) == 0).sum()) <= 1
    valence = rng.normal(size=(300, 2)).astype(np.float32)
    test = split(make([0] * 300, columns={"valence_arousal": valence}, classes=("x",)), FRACTIONS, 0)["test"]
    edges = np.sort(valence[:, 0])[[99, 199]]
    thirds = Counter(np.digitize(test.columns["valence_arousal"][:, 0], edges, right=True).tolist())
    assert all(abs(thirds[i] - 20) <= 1 for i in range(3))


def test_unlabelled_examples_are_a_stratum_that_may_be_tiny():
    labels = [0] * 50 + [1] * 50 + [UNLABELLED]
    examples = make(labels, classes=("x", "y"))
    check_partition(examples, split(examples, FRACTIONS, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": {"train": 0.8, "test": 0.3}}, r"add up to 1\.1"),
        ({"fractions": {"train": 0.8, "text": 0.2}}, "no split 'text'"),
        ({"fractions": {"train": 1.8, "test": -0.8}}, r"config\.data\.split\.train is 1\.8"),
        ({"fractions": {"train": math.nan, "test": 0.5}}, r"config\.data\.split\.train is nan"),
        ({"fractions": {"test": 1.0}}, "gives train nothing"),
        ({"folds": 1}, "2 or more folds"),
        ({"folds": 3, "fold": 3}, "2 or more folds"),
        ({"folds": -2}, "2 or more folds"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        split(make(toy()), **{"fractions": FRACTIONS, "seed": 0, **arguments})


def test_too_few_examples_of_a_class_name_it_and_count_it():
    with pytest.raises(InputError, match=r"toy: class 'sad' has 2 examples.*split 'validation' \(10%\)"):
        split(make([0] * 50 + [2] * 2), {"train": 0.4, "validation": 0.1, "test": 0.5}, 0)
    with pytest.raises(InputError, match=r"class 'glad' has 3 examples.*fewer folds"):
        split(make([0] * 50 + [1] * 3), {"train": 0.8, "test": 0.2}, 0, folds=5)
    with pytest.raises(InputError, match="in whole groups"):
        split(make([0] * 50, groups=np.array(["one"] * 50)), FRACTIONS, 0)


def test_wrong_prescribed_splits():
    with pytest.raises(InputError, match="unknown prescribed splits holdout"):
        split(make([0, 1], splits=np.array(["train", "holdout"])), FRACTIONS, 0)
    with pytest.raises(InputError, match="no train"):
        split(make([0, 1], splits=np.array(["test", "val"])), FRACTIONS, 0)
    with pytest.raises(InputError, match=r"use_prescribed to False"):
        split(make(toy(2), splits=np.array(["test", "train"])), FRACTIONS, 0, folds=5)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Training", "train"),
        ("PublicTest", "validation"),
        ("PrivateTest", "test"),
        (" VAL ", "validation"),
        ("test_set", "test"),
        ("Training Data", "train"),
        ("validation-dataset", "validation"),
        ("public_test", "validation"),
        ("private_test", "test"),
        ("train_images", "train"),
        ("x", None),
        ("set", None),
        ("trained", None),
        ("test_2", None),
    ],
)
def test_spellings_of_splits(spelling, name):
    assert normalise_split(spelling) == name


def test_a_class_that_one_split_alone_has_is_named(caplog):
    labels = [0, 1] * 20 + [0, 1, 2, 2]
    names = np.array(["train"] * 30 + ["validation"] * 10 + ["test"] * 4)
    with caplog.at_level("WARNING"):
        split(make(labels, splits=names), FRACTIONS, 0)
    assert "test alone has examples of class 'sad' (train: 0, validation: 0, test: 2), so it cannot be learned" in (
        caplog.text
    )
    assert "'calm'" not in caplog.text
