"""The scoreboard: what it shows, who is ahead, and that its Markdown is a table."""

import math

import pytest

from emokd.reporting.page.blocks import Grid
from emokd.reporting.page.environment import environment
from emokd.reporting.scoreboard import flatten_scores, headline_scores, higher_is_better, scoreboard
from emokd.reporting.table import Table, count_text

SCORES = {
    "split": "test",
    "examples": 1024,
    "student": {
        "expression": {"accuracy": 0.75, "macro_f1": 0.5, "ece": 0.1, "confusion": [[1, 0], [0, 1]]},
        "valence_arousal": {"mean_ccc": 0.45, "valence": {"ccc": 0.4, "rmse": 0.25, "pcc": 0.5}},
        "backbone": "basic_cnn",
        "parameters": 123456,
        "macs": 3.0e8,
        "size": 48,
    },
    "teachers": {
        "large": {"expression": {"accuracy": 0.7, "macro_f1": 0.625}, "parameters": 25_600_000, "macs": 4.1e9},
        "small": {"expression": {"accuracy": 0.8, "macro_f1": 0.25}},
        "affect": {"valence_arousal": {"valence": {"ccc": 0.3, "rmse": 0.5}}},
        "scene": {"parameters": 10},
    },
    "weights": {
        "distill": {
            "mean": {"large": 0.25, "small": 0.75},
            "by_class": {"happy": {"large": 0.5, "small": 0.5}, "sad": {"large": 0.125, "small": 0.875}},
        },
        "finetune": {},
    },
}


def test_scores_whose_epoch_the_test_split_picked_say_so():
    assert "optimistic" in scoreboard({**SCORES, "selected_on": "test"})
    assert "optimistic" not in scoreboard({**SCORES, "selected_on": "validation"})
    assert "optimistic" not in scoreboard(SCORES)


def test_skipped_steps_are_named_below_the_scores():
    assert "skipped" not in scoreboard({**SCORES, "skipped_steps": []})
    text = scoreboard({**SCORES, "skipped_steps": [7], "baseline_training": {"skipped_steps": [2, 11]}})
    assert "1 of the run's steps was skipped, because something was not finite: 7." in text
    assert "2 of the baseline's steps were skipped, because something was not finite: 2, 11." in text


def cells(text):
    """Rows of the Markdown tables, as an independent reader splits them."""
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_network_has_its_row():
    rows = {row[0]: row[1:] for row in cells(scoreboard(SCORES))}
    header = rows[""]
    assert header == [
        "accuracy",
        "macro F1",
        "mean CCC",
        "valence CCC",
        "valence RMSE",
        "parameters",
        "MACs",
    ]
    assert rows["student"] == ["0.7500", "0.5000", "0.4500", "0.4000", "0.2500", "123 k", "300 M at 48"]
    assert rows["teacher large"] == ["0.7000", "0.6250", "-", "-", "-", "25.6 M", "4.1 G"]
    assert rows["teacher scene"] == ["-", "-", "-", "-", "-", "10", "-"]


def test_the_best_teacher_is_found_for_each_score():
    text = scoreboard(SCORES)
    assert "Accuracy: the student (0.7500) does not beat the best teacher, small (0.8000); it lacks 0.0500." in text
    assert "Macro F1: the student (0.5000) does not beat the best teacher, large (0.6250)" in text
    assert "Valence CCC: the student (0.4000) beats the best teacher, affect (0.3000) by 0.1000." in text
    assert "RMSE: the student (0.2500) beats the best teacher, affect (0.5000) by 0.2500." in text
    assert "Scores: test split, 1024 examples, one run" in text


def test_equal_scores_are_no_victory():
    text = scoreboard({"student": {"e": {"accuracy": 0.5}}, "teachers": {"t": {"e": {"accuracy": 0.5}}}})
    assert "equals the best teacher, t (0.5000)." in text
    assert "unknown split" in text


def test_a_score_that_is_not_a_number_wins_nothing():
    nan = {"e": {"accuracy": math.nan}}
    good = {"e": {"accuracy": 0.5}}
    assert "the student has no score" in scoreboard({"student": nan, "teachers": {"t": good}})
    assert "beats the best teacher" not in scoreboard({"student": good, "teachers": {"t": nan}})


def test_weights_by_phase_and_class():
    text = scoreboard(SCORES)
    rows = {row[0]: row[1:] for row in cells(text)}
    assert "phase distill" in text and "phase finetune" not in text
    assert rows["class"] == ["large", "small"]
    assert rows["all"] == ["0.250", "0.750"]
    assert rows["sad"] == ["0.125", "0.875"]


def test_a_student_alone():
    text = scoreboard({"student": {"expression": {"accuracy": 0.5}}, "teachers": {}, "weights": {}})
    assert [row[0] for row in cells(text)] == ["", "---------", "student"]
    assert cells(text)[0][1] == "accuracy"


def test_flatten_keeps_numbers_only():
    assert flatten_scores({"a": {"b": 1, "c": [1], "d": None, "e": "x", "f": True}, "g": 0.5}) == {"a.b": 1.0, "g": 0.5}


def test_several_classifying_targets_are_told_apart():
    text = scoreboard({"student": {"expression": {"accuracy": 0.5}, "scene": {"accuracy": 0.75}}})
    assert cells(text)[0][1:3] == ["expression accuracy", "scene accuracy"]


def test_headlines_leave_out_classes_and_costs():
    scores = {
        "e": {
            "macro_f1": 1.0,
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "per_class": {"f1": 1, "accuracy": 1},
            "ece": 0.1,
        },
        "macs": 3,
    }
    assert list(headline_scores(scores)) == ["e.accuracy", "e.macro_f1"]


@pytest.mark.parametrize(
    ("name", "upward"), [("e.accuracy", True), ("va.valence.rmse", False), ("va.rmse_valence", False), ("e.ece", False)]
)
def test_direction(name, upward):
    assert higher_is_better(name) is upward


def test_table_cells_cannot_break_out():
    table = Table(["a|b", "<b>"], [["x\ny", "1"]], title="<i>", notes=["&"])
    assert table.markdown().splitlines()[2] == "| a\\|b | <b> |"
    assert table.markdown().splitlines()[4] == "| x y  |   1 |"
    html = environment().from_string('{% from "blocks.html" import draw %}{{ draw(block) }}').render(block=Grid(table))
    assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;" in html and "<p>&amp;</p>" in html


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (999, "999"), (2_350_000, "2.35 M"), (1.693e10, "16.9 G"), (5e12, "5 T")],
)
def test_count_text(number, text):
    assert count_text(number) == text


def test_networks_with_fewer_modalities_have_a_table_of_their_own():
    variants = {"joint(face)": {"expression": {"accuracy": 0.625, "macro_f1": 0.5}}, "joint(voice)": {}}
    text = scoreboard({**SCORES, "variants": variants})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["joint(face)", "0.6250", "0.5000"] in rows
    assert "With the modalities in brackets alone" in text
    assert "brackets" not in scoreboard(SCORES) + scoreboard({**SCORES, "variants": {}})
