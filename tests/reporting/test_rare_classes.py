"""What is said of classes that are never answered, and of unequal ones."""

import numpy as np
import pytest
from lazily import Lazily

from emokd import metrics
from emokd.reporting import rare_classes
from emokd.reporting.scoreboard import scoreboard

sklearn_metrics = Lazily("sklearn.metrics")

CLASSES = ("neutral", "happy", "sad", "fear", "contempt")
LABELS = np.repeat([0, 1, 2, 3], [13, 6, 4, 2])  # nobody shows contempt
TRAINING = {"expression": {"neutral": 130.0, "happy": 60.0, "sad": 40.0, "fear": 7.0, "contempt": 0.0}}


def scores_of(said, labels=LABELS, classes=CLASSES):
    """Scores of a network that gives these answers."""
    return metrics.classification_scores(np.eye(len(classes))[said], labels.astype(np.int32), classes)


def remarks(said, **teachers):
    networks = {"student": {"expression": scores_of(said)}}
    networks |= {name: {"expression": scores_of(answers)} for name, answers in teachers.items()}
    return rare_classes.remarks(networks, "validation", TRAINING)


def test_a_class_that_is_never_answered_is_named_with_its_numbers_for_each_network():
    own, theirs = LABELS.copy(), LABELS.copy()
    own[own == 3] = 2
    theirs[theirs > 1] = 0
    found = remarks(own, faces=theirs)
    assert len(found) == 3
    assert found[0].startswith("Validation split: the student gives none of the 25 examples the expression fear (2")
    assert "7 in training" in found[0] and "sad" not in found[0] and "contempt" not in found[0]
    assert "teacher faces" in found[1] and "sad (4 examples, 40 in training), fear (2" in found[1]
    assert "no example of expression contempt" in found[2] and "macro F1" in found[2]


def test_answers_of_every_class_are_worth_no_word_even_if_wrong():
    said = LABELS[::-1].copy()
    assert [text for text in remarks(said) if "none of" in text] == []
    assert rare_classes.never_predicted(scores_of(said)) == {}


@pytest.mark.parametrize(("others", "said_so"), [(0, True), (1, True), (2, False)])
def test_a_network_that_answers_little_else_than_one_class_is_named(others, said_so):
    said = np.zeros(25, int)
    said[:others] = 1
    found = [text for text in remarks(said) if "neutral, which 52.0% of them have" in text]
    assert bool(found) == said_so


def test_an_unequal_split_that_is_answered_right_has_not_collapsed():
    labels = np.repeat([0, 1], [97, 3])
    networks = {"student": {"pain": scores_of(labels, labels, ("none", "pain"))}}
    assert rare_classes.remarks(networks, "test", {}) == []


def test_votes_count_by_their_majority():
    votes = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.0, 0.0]], np.float32)
    scores = metrics.classification_scores(np.eye(2)[[0, 0, 0, 1]], votes, ("none", "pain"))
    assert rare_classes.never_predicted(scores) == {"pain": 1}


def test_targets_without_classes_or_labels_are_passed_over():
    networks = {
        "student": {"valence_arousal": {"mean_ccc": 0.5}, "expression": {"count": 0}, "backbone": "mlp"},
        "faces": {},
    }
    assert rare_classes.remarks(networks, "test", TRAINING) == []


@pytest.mark.parametrize(
    ("counts", "unequal"),
    [
        ((4, 3, 3), False),
        ((20, 5, 5), False),  # exactly twice its share
        ((21, 5, 4), True),
        ((10, 1, 0, 0, 0), True),
        ((75, 25), False),
        ((76, 24), True),
    ],
)
def test_balanced_accuracy_stands_beside_accuracy_where_the_largest_class_has_twice_its_share(counts, unequal):
    labels, classes = np.repeat(np.arange(len(counts)), counts), CLASSES[: len(counts)]
    said = np.zeros_like(labels)
    said[-3:] = labels[-3:]
    one, other = scores_of(said, labels, classes), scores_of(labels, labels, classes)
    text = scoreboard({"student": {"expression": one}, "teachers": {"faces": {"expression": other}}})
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rows = {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}
    assert one["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, said))
    assert rows[""][: 1 + unequal] == ["accuracy", "balanced accuracy"][: 1 + unequal]
    assert ("balanced accuracy" in text.lower()) == unequal
    if unequal:
        assert rows["student"][1] == f"{sklearn_metrics.balanced_accuracy_score(labels, said):.4f}"
        assert rows["teacher faces"][1] == "1.0000"


def test_remarks_stand_below_the_scoreboard_and_cannot_break_out_of_the_page():
    text = "Test split: the student gives none of the 3 examples the expression <b>sad</b>."
    assert text in scoreboard({"student": {"expression": {"accuracy": 0.5}}, "remarks": [text]})
