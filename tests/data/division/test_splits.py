import math
from collections import Counter

import numpy as np
import pytest

from emokd.data.division.duplicates import find_duplicates
from emokd.data.division.folds import sort_groups
from emokd.data.division.splits import normalise_split, split
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.labels import UNLABELLED

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def make(labels, keys=None, contents=None, classes=("calm", "glad", "sad"), **options):
    labels = np.asarray(labels, np.int32)
    keys = [f"picture{i}" for i in range(len(labels))] if keys is None else keys
    contents = keys if contents is None else contents
    options = {"columns": {"expression": labels}, "classes": {"expression": classes}, **options}
    return Examples(name="toy", keys=keys, inputs={}, content=lambda i: contents[i], **options)


def keys_of(parts):
    return {name: set(part.keys) for name, part in parts.items()}


def check_partition(examples, parts):
    keys = [key for part in parts.values() for key in part.keys]
    assert sorted(keys) == sorted(examples.keys)


def toy(n=230, seed=0):
    return np.random.default_rng(seed).choice(3, n, p=[0.6, 0.3, 0.1])


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


def subjects(*counts):
    """Groups s1, s2, ... of so many examples each, of three classes in turn."""
    names = [f"s{k + 1}" for k, count in enumerate(counts) for _ in range(count)]
    return np.arange(len(names)) % 3, np.array(names)


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


def test_the_test_split_picks_no_epoch_where_there_is_a_validation_split_or_no_test_split():
    named = make(toy(30), splits=np.array(["train", "validation", "test"] * 10))
    with pytest.raises(InputError, match=r"toy prescribes a validation split.*validation_is_test to False"):
        split(named, FRACTIONS, 0, validation_is_test=True)
    with pytest.raises(InputError, match="validation_is_test needs a test split"):
        split(make(toy()), {"train": 0.9, "validation": 0.1}, 0, validation_is_test=True)


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
        ("x", None),
    ],
)
def test_spellings_of_splits(spelling, name):
    assert normalise_split(spelling) == name


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


def test_a_class_that_one_split_alone_has_is_named(caplog):
    labels = [0, 1] * 20 + [0, 1, 2, 2]
    names = np.array(["train"] * 30 + ["validation"] * 10 + ["test"] * 4)
    with caplog.at_level("WARNING"):
        split(make(labels, splits=names), FRACTIONS, 0)
    assert "test alone has examples of class 'sad' (train: 0, validation: 0, test: 2), so it cannot be learned" in (
        caplog.text
    )
    assert "'calm'" not in caplog.text
