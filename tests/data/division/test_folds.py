"""Folds, and groups (subjects) that stay together or are left out one after another."""

from collections import Counter

import numpy as np
import pytest
from splits_setup import FRACTIONS, check_partition, make, subjects, toy

from emokd.data.division.folds import sort_groups
from emokd.data.division.splits import split
from emokd.errors import InputError
from emokd.labels import UNLABELLED


def test_folds_cover_everything_once():
    labels = toy()
    examples = make(labels)
    tests = []
    for fold in range(4):
        parts = split(examples, FRACTIONS, 0, folds=4, fold=fold)
        check_partition(examples, parts)
        tests += parts["test"].keys
        rest = len(examples) - len(parts["test"])
        assert abs(len(parts["validation"]) - rest / 8) <= 3
        for label, n in Counter(labels.tolist()).items():
            assert abs(Counter(parts["test"].columns["expression"].tolist())[label] - n / 4) <= 1
    assert sorted(tests) == sorted(examples.keys)


def test_folds_without_validation():
    assert set(split(make(toy()), {"train": 0.8, "test": 0.2}, 0, folds=5)) == {"train", "test"}


def test_groups_stay_together_and_splits_stay_balanced():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    subjects = np.array([f"s{value}" for value in rng.integers(0, 24, 600)])
    examples = make(labels, groups=subjects)
    for fold in range(5):
        parts = split(examples, FRACTIONS, 0, folds=5, fold=fold)
        check_partition(examples, parts)
        homes = [set(part.groups.tolist()) for part in parts.values()]
        assert sum(map(len, homes)) == 24 == len(set.union(*homes))
        assert 4 <= len(set(parts["test"].groups)) <= 6
        assert abs(len(parts["test"]) - 120) <= 25
    mixed = split(examples, FRACTIONS, 0, by_group=False)
    assert set(mixed["train"].groups) & set(mixed["test"].groups)


def test_groups_joined_by_a_duplicate_go_together():
    examples = make(
        [0, 1] * 10,
        groups=np.repeat([f"g{i}" for i in range(10)], 2),
        contents=["x", *"abcdefghijklmnopqr", "x"],
    )
    parts = split(examples, {"train": 0.5, "test": 0.5}, 0)
    assert any({"g0", "g9"} <= set(part.groups.tolist()) for part in parts.values())


def test_leaving_one_subject_out_tests_on_each_in_turn():
    labels, groups = subjects(*[6] * 12)
    order = np.random.default_rng(0).permutation(72)
    examples = make(labels[order], groups=groups[order])
    tested = []
    for fold in range(12):
        parts = split(examples, FRACTIONS, 0, leave_one_group_out=True, fold=fold, by_group=fold % 2 == 0)
        check_partition(examples, parts)
        assert set(parts["test"].groups) == {f"s{fold + 1}"}  # s2 before s10
        assert len(parts["test"]) == 6
        assert not set(parts["train"].groups) & set(parts["validation"].groups)
        assert set(parts["validation"].groups) | set(parts["train"].groups) == {f"s{k + 1}" for k in range(12)} - {
            f"s{fold + 1}"
        }
        tested += parts["test"].keys
    assert sorted(tested) == sorted(examples.keys)


def test_groups_are_sorted_by_the_numbers_in_their_names():
    assert sort_groups(["s10", "s9", "b", "s09", "s9", "10a", "9b"]) == ["9b", "10a", "b", "s09", "s9", "s10"]


def test_a_twin_of_the_subject_left_out_is_not_learned_from(caplog):
    labels, groups = subjects(6, 6, 6, 6)
    thirds = {"train": 0.4, "validation": 0.3, "test": 0.3}
    contents = [str(i) for i in range(24)]
    contents[3] = contents[20]  # s1 has a picture of s4
    examples = make(labels, contents=contents, groups=groups)
    with caplog.at_level("WARNING"):
        parts = split(examples, thirds, 0, leave_one_group_out=True, fold=3)
    assert parts["test"].keys == [f"picture{i}" for i in range(18, 24)]
    assert {key for part in parts.values() for key in part.keys} == set(examples.keys) - {"picture3"}
    assert "1 examples of other groups have equal ones in group s4; they are left out: picture3" in caplog.text
    kept = split(examples, thirds, 0, leave_one_group_out=True, fold=3, keep_leaks=True)
    check_partition(examples, kept)


def test_folds_of_samples_share_subjects_and_folds_of_subjects_do_not():
    labels, groups = subjects(*[9] * 10)
    examples = make(labels, groups=groups)
    mixed = split(examples, FRACTIONS, 0, folds=5, by_group=False)
    assert set(mixed["test"].groups) & set(mixed["train"].groups)
    whole = split(examples, FRACTIONS, 0, folds=5)
    assert not set(whole["test"].groups) & set(whole["train"].groups)


def test_the_test_split_may_pick_the_epoch_with_a_warning(caplog):
    labels = toy()
    examples = make(labels)
    with caplog.at_level("WARNING"):
        parts = split(examples, FRACTIONS, 0, folds=5, fold=2, validation_is_test=True)
        assert caplog.text.count("the test split also picks the epoch") == 1
        split(examples, FRACTIONS, 0, folds=5, fold=3, validation_is_test=True)
        assert caplog.text.count("the test split also picks the epoch") == 2
    assert list(parts) == ["train", "validation", "test"]
    assert parts["validation"] is parts["test"]
    honest = split(examples, FRACTIONS, 0, folds=5, fold=2)
    assert parts["test"].keys == honest["test"].keys
    assert set(parts["train"].keys) == set(honest["train"].keys) | set(honest["validation"].keys)
    without_folds = split(examples, FRACTIONS, 0, validation_is_test=True)
    for label, n in Counter(labels.tolist()).items():
        assert abs((without_folds["train"].columns["expression"] == label).sum() - 0.8 * n) <= 1


def test_a_fold_of_one_class_names_itself_and_the_remedy():
    examples = make([0, 1] * 5 + [1] * 4, groups=np.array(["a"] * 10 + ["b"] * 4))
    with pytest.raises(
        InputError, match=r"toy: in fold 1 the test split \(groups b\) has only class 'glad'.*scored.*fewer config"
    ):
        split(examples, {"train": 0.8, "test": 0.2}, 0, leave_one_group_out=True, fold=1)
    with pytest.raises(InputError, match=r"in fold 0 the train split \(groups b\) has only class 'glad'.*learned"):
        split(examples, {"train": 0.8, "test": 0.2}, 0, leave_one_group_out=True, fold=0)
    folded = make([0] * 6 + [1] * 6 + [0, 1] * 3, groups=np.repeat(["a", "b", "c"], 6))
    with pytest.raises(InputError, match=r"in fold \d the test split \(groups [ab]\) has only class"):
        for fold in range(3):
            split(folded, {"train": 0.8, "test": 0.2}, 0, folds=3, fold=fold)
    prescribed = make([0, 1] * 5 + [1] * 4, splits=np.array(["train"] * 10 + ["test"] * 4))
    with pytest.raises(InputError, match="in the prescribed splits the test split has only class 'glad'.*scored"):
        split(prescribed, {"train": 1.0}, 0)
    unlabelled = make([0, 1] * 5 + [UNLABELLED] * 4, groups=np.array(["a"] * 10 + ["b"] * 4))
    with pytest.raises(InputError, match="has no labelled example"):
        split(unlabelled, {"train": 0.8, "test": 0.2}, 0, leave_one_group_out=True, fold=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leave_one_group_out": True, "fold": 4}, r"fold is 4, but toy has 4 groups \(subjects\).*Give 0 to 3"),
        ({"leave_one_group_out": True, "fold": -1}, "fold is -1"),
        ({"leave_one_group_out": True, "folds": 4}, "also folds=4. Set one of the two"),
        ({"folds": 5}, "folds is 5, but toy has only 4 groups.*Use 4 or fewer, or set config.data.split.by_group"),
    ],
)
def test_folds_that_the_subjects_do_not_allow(arguments, message):
    labels, groups = subjects(6, 6, 6, 6)
    with pytest.raises(InputError, match=message):
        split(make(labels, groups=groups), **{"fractions": FRACTIONS, "seed": 0, **arguments})


def test_leaving_a_subject_out_needs_subjects():
    with pytest.raises(InputError, match=r"toy does not say which subject"):
        split(make(toy()), FRACTIONS, 0, leave_one_group_out=True)
    with pytest.raises(InputError, match="has 1 groups.*by_group False"):
        split(make(toy(6), groups=np.array(["one"] * 6)), FRACTIONS, 0, leave_one_group_out=True)
    with pytest.raises(InputError, match="prescribes its own splits"):
        labels, groups = subjects(6, 6)
        split(make(labels, groups=groups, splits=np.array(["train"] * 12)), FRACTIONS, 0, leave_one_group_out=True)


def test_groups_on_several_sides_are_counted_and_named(caplog):
    labels, groups = subjects(*[9] * 10)
    names = np.array(["train"] * 63 + ["test"] * 27)
    names[0] = "test"
    with caplog.at_level("WARNING"):
        split(make(labels, groups=groups, splits=names), {"train": 0.8, "test": 0.2}, 0)
    assert "1 of 10 groups" in caplog.text and "(test and train: 1): s1." in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        split(make(labels, groups=groups), FRACTIONS, 0, by_group=False)
    assert "of 10 groups" in caplog.text and "are in several splits" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        split(make(labels, groups=groups), FRACTIONS, 0)
        split(make(labels, groups=groups), FRACTIONS, 0, folds=5, fold=1)
    assert "in several splits" not in caplog.text


def test_validation_is_carved_from_a_prescribed_train_in_whole_groups():
    labels, groups = subjects(*[9] * 12)
    parts = split(make(labels, groups=groups, splits=np.array(["train"] * 90 + ["test"] * 18)), FRACTIONS, 0)
    assert not set(parts["train"].groups) & set(parts["validation"].groups)
