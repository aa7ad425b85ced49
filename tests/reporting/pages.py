"""Runs' folders for the tests of their pages, made without training."""

import json

import numpy as np

from emokd.reporting import observations, predictions
from emokd.reporting.metrics_log import MetricsLog

CLASSES = ("neutral", "happy", "<b>sad</b>")


def whole_run(folder):
    """A run whose page has every section: scores, answers, observations, warnings, what it began with."""
    rng = np.random.default_rng(0)
    score = {"accuracy": 0.6, "macro_f1": 0.5, "count": 90, "ece": 0.1, "classes": CLASSES}
    score["confusion"] = [[20, 5, 5], [4, 21, 5], [9, 8, 13]]
    scores = {
        "split": "test", "examples": 90, "student": {"expression": score},
        "baseline": {"expression": {"accuracy": 0.5, "macro_f1": 0.4}},
        "teachers": {"big": {"expression": {"accuracy": 0.7, "macro_f1": 0.6}}, "small": {"expression": score}},
        "weights": {"distill": {"mean": {"big": 0.8, "small": 0.2}, "by_class": {"happy": {"big": 0.9, "small": 0.1}}}},
        "remarks": ["One run."], "accepted_changes": ["the test split has other pictures"],
    }  # fmt: skip
    config = {"recipe": "smkd", "seed": 0, "data": {"source": "painter"}, "select": {"metric": "expression/accuracy"}}
    sets = {"test": {"keys": ["a"], "checksums": "00", "columns": {"expression": "11"}}}
    began = {"sets": sets, "classes": {"expression": CLASSES}, "files": {"config.teachers.big.checkpoint": "ab" * 32}}
    for name, content in (("scores", scores), ("config", config), ("began_with", began)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "student").mkdir()
    (folder / "warnings.jsonl").write_text('{"text": "a picture is left out"}\n')
    with MetricsLog(folder, sinks=()) as log:
        for step in range(1, 41):
            metrics = {"loss": 3 / step, "weight/big": 0.7, "weight/small": 0.3, "examples_per_second_per_device": 9.0}
            log.write(step, "distill" if step <= 20 else "classify", metrics)
            log.write(step, "distill" if step <= 20 else "classify", {"validation/expression/accuracy": step / 60})
    columns = {"id": np.arange(90, dtype=np.uint32), "check": np.arange(90, dtype=np.uint32)}
    columns |= {"expression": rng.integers(0, 3, 90).astype(np.int32), "valence_arousal": rng.uniform(-1, 1, (90, 2))}
    outputs = {"expression": rng.normal(size=(90, 3)), "valence_arousal": rng.uniform(-1, 1, (90, 2))}
    predictions.write(folder, "test", outputs, columns, {"expression": CLASSES})
    arrays = {name: rng.normal(size=(12, 5)) for name in ("student", "teacher/big", "teacher/small")}
    arrays |= {"error/big": np.zeros(12), "expression": np.arange(12, dtype=np.int32) % 3}
    observations.write(folder, "classify", 40, arrays, CLASSES)
    return folder
