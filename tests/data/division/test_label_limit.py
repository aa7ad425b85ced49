"""How many labels a run may use: their number, their classes, and that nothing of a group is parted."""

from collections import Counter

import numpy as np
import pytest
from absl import logging

from emokd.data.division.label_limit import limit_labels
from emokd.data.examples import Examples
from emokd.errors import InputError

CLASSES = ("calm", "glad", "sad")


def make_examples(counts=(60, 30, 10), unlabelled=20, groups=None) -> Examples:
    """So many of each class, one by one among each other, and some without a label."""
    labels = np.repeat([*range(len(counts)), -1], [*counts, unlabelled]).astype(np.int32)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    return Examples(
        "toys",
        [f"{i}.png" for i in range(len(labels))],
        {"expression": labels},
        {"expression": CLASSES},
        {"image": lambda i: np.full((2, 2, 3), i, np.uint8)},
        content=str,
        groups=groups,
    )


def count(examples) -> list[int]:
    found = Counter(examples.columns["expression"].tolist())
    return [found[i] for i in (0, 1, 2, -1)]


@pytest.mark.parametrize(("limit", "expected"), [(50, [30, 15, 5, 0]), (0.1, [6, 3, 1, 0]), (100, [60, 30, 10, 0])])
def test_classes_keep_their_proportions(limit, expected):
    examples = make_examples()
    labelled, rest = limit_labels(examples, limit, seed=0)
    assert count(labelled) == expected
    assert sorted([*labelled.keys, *rest.keys]) == sorted(examples.keys) and count(rest)[3] == 20
    assert [examples.keys.index(key) for key in labelled.keys] == sorted(map(examples.keys.index, labelled.keys))
    assert labelled.inputs["image"](0)[0, 0, 0] == int(labelled.keys[0].split(".")[0])


def test_a_smaller_limit_takes_part_of_a_larger_one_and_another_seed_takes_others():
    examples = make_examples()
    kept = {limit: set(limit_labels(examples, limit, seed=3)[0].keys) for limit in (5, 20, 70)}
    assert kept[5] < kept[20] < kept[70]
    assert set(limit_labels(examples, 20, seed=4)[0].keys) != kept[20]


def test_no_limit_changes_nothing():
    examples = make_examples()
    labelled, rest = limit_labels(examples, 0, seed=0)
    assert labelled is examples and rest is None


def test_groups_stay_whole_and_the_number_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    groups = np.array([f"person{i % 30}" for i in range(120)])
    examples = make_examples(groups=groups)
    kept = {}
    for limit in (10, 31, 60):
        labelled, rest = limit_labels(examples, limit, seed=1)
        labelled_rest = np.asarray(rest.columns["expression"]) >= 0
        assert not set(labelled.groups) & set(rest.groups[labelled_rest])
        assert abs(len(labelled) - limit) <= 2 and count(labelled)[3] == 0
        kept[limit] = set(labelled.groups)
    assert kept[10] < kept[31] < kept[60]
    assert any("labels are used, not the" in text and "groups (subjects) stay whole" in text for text in said)
    assert len(limit_labels(examples, 31, seed=1, by_group=False)[0]) == 31
    assert set(limit_labels(examples, 31, seed=2)[0].groups) != kept[31]


def test_valence_and_arousal_are_labels_too():
    affect = np.full((10, 2), np.nan, np.float32)
    affect[:6, 0] = np.linspace(-1, 1, 6)
    columns, classes = {"valence_arousal": affect}, {}
    examples = Examples("toys", [str(i) for i in range(10)], columns, classes, {"image": lambda i: i}, content=str)
    labelled, rest = limit_labels(examples, 3, seed=0)
    # One of each third of valence.
    assert sorted(np.searchsorted([-0.4, 0.4], labelled.columns["valence_arousal"][:, 0])) == [0, 1, 2]
    assert len(rest) == 7


@pytest.mark.parametrize("limit", [101, 2.5])
def test_what_is_no_number_of_labels_is_refused(limit):
    with pytest.raises(InputError, match=f"config.data.labels.limit is {limit:g}, .* toys has 100 labelled examples"):
        limit_labels(make_examples(), limit, seed=0)
