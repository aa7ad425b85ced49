"""Rare classes in whole runs: what is said in the log, the scores and the report, and the epoch that they pick."""

import json

import numpy as np
import pytest
from absl import logging
from small_jobs import paint

from emokd.jobs import datasets, job, scoring
from emokd.recipes import supervised


def train(config, workdir, monkeypatch):
    """A run's scores, and the warnings that it logs."""
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(logging, "warning", lambda text, *values: said.append(text % values if values else text))
        return job.train(config, workdir), said


@pytest.fixture
def config():
    config = paint(supervised.default_config(), steps=4)
    config.devices = 1
    config.evaluation.every_steps = 2
    config.class_weights, config.label_smoothing = "balanced", 0.1
    config.select.metric = "expression/balanced_accuracy"
    return config.lock()


def never(confusion, classes):
    matrix = np.array(confusion)
    return {name: int(n) for name, n, said in zip(classes, matrix.sum(1), matrix.sum(0), strict=True) if n and not said}


def test_a_run_says_what_its_student_never_answers_and_selects_by_balanced_accuracy(config, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    scores, warnings = train(config, workdir, monkeypatch)
    remarks = scores["remarks"]
    assert json.loads((workdir / "scores.json").read_text())["remarks"] == remarks
    training = datasets.load_splits(config)["train"]
    counts = np.bincount(training.columns["expression"], minlength=8)
    silent = 0  # which classes a student of few steps leaves out differs from machine to machine
    for split in ("validation", "test"):
        again = scoring.evaluate_student(workdir, split)
        found = never(again["expression"]["confusion"], again["expression"]["classes"])
        told = [text for text in remarks if text.startswith(split.capitalize()) and "gives none" in text]
        assert len(told) == bool(found)
        silent += len(found)
        for c, (name, count) in enumerate((n, found.get(n)) for n in training.classes["expression"] if told):
            assert (f"{name} ({count} example" in told[0]) == (name in found)
            assert name not in found or f"{counts[c]} in training" in told[0]
        assert [text for text in remarks if text.startswith(split.capitalize())] == again["remarks"]
    assert silent
    for text in remarks:
        assert sum(text in warning for warning in warnings) == 1
        assert text in (workdir / "report.html").read_text()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row[key] for row in rows if (key := "validation/expression/balanced_accuracy") in row}
    assert set(found) == {2, 4} and scores["validation"]["best"] == pytest.approx(max(found.values()))
    assert found[scores["selected_step"]] == max(found.values())
    # A run that had come to its end and has no scores yet looks at validation once more.
    (workdir / "scores.json").unlink()
    again, _ = train(config, workdir, monkeypatch)
    assert again["remarks"] == remarks


def test_a_class_without_training_examples_is_said_when_the_run_begins(config, tmp_path, monkeypatch):
    whole = datasets.load_splits(config)
    # Nobody in the training split is happy: its faces are sad instead.
    train_split = whole["train"]
    names = train_split.classes["expression"]
    labels = train_split.columns["expression"]
    labels[labels == names.index("happy")] = names.index("sad")
    monkeypatch.setattr(datasets, "load_splits", lambda config: whole)
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values if values else text))
    made = job.create_job(config, lambda file, name: pytest.fail("no teacher"))
    [text] = [text for text in said if "No training example" in text]
    assert "happy" in text and "sad" not in text and "weight is 0" in text
    assert np.isfinite([step.learning_rate(0) for step in made.recipe.phases]).all()


def test_programs_are_those_of_the_classes_counts_only_where_these_weigh(config):
    task = job.Task({"expression": ("a", "b")}, ("expression",), {"labelled": 24, "all": 24}, 8)
    one, other = (job.dataclasses.replace(task, counts={"expression": counts}) for counts in ((1.0, 23.0), (2.0, 22.0)))
    assert job.program_key(config, one, {}, ()) != job.program_key(config, other, {}, ())
    with config.unlocked():
        config.class_weights = "none"
    assert job.program_key(config, one, {}, ()) == job.program_key(config, other, {}, ())
