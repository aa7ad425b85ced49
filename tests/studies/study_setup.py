"""A study of two variants with a fake `train`, whose scores are known, and the cells of its table."""

import json
import pathlib

from emokd.configuration.config import to_json
from emokd.errors import InputError
from emokd.studies.plan import create_study, define

ACCURACY = {"kd": {0: 0.5, 1: 0.625, 2: 0.75}, "none": {0: 0.5, 1: 0.5, 2: 0.5}}


def make_study(file, **changes):
    parts = {
        "title": "Does KD help?",
        "variants": {"none": {"method": "none"}, "kd": {"method": "kd", "strength": 2.0}},
        "metric": "student.expression.accuracy",
        "seeds": (0, 1, 2),
        "per_seed": ("seed", "data.fold"),
        "baseline": "none",
    }
    return create_study(define(**{"base": file, **parts, **changes}))


class FakeTrain:
    """Writes scores as `emokd.jobs.job.train` does; fails where it is told to; remembers its calls."""

    def __init__(self, failing=(), score=lambda config: ACCURACY[config.method][config.seed]):
        self.calls, self.failing, self.score = [], failing, score

    def __call__(self, config, workdir, **options):
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(to_json(config))
        self.calls.append((config.method, config.seed, config.data.fold))
        if (config.method, config.seed) in self.failing:
            raise InputError("There is no file x.")
        scores = {
            "split": "test",
            "examples": 40,
            "student": {"expression": {"accuracy": self.score(config), "confusion": [[1]]}, "parameters": 1000},
            "teachers": {"big": {"expression": {"accuracy": 0.625}, "macs": 2e9, "size": 224}},
            "weights": {"distill": {"mean": {"big": 1.0}}},
        }
        (folder / "scores.json").write_text(json.dumps(scores))
        return scores


class FakeClock:
    """Every look at it is 5 seconds later: a run takes 5 seconds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 5.0
        return self.now


def cells(text):
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def row_of(text, name):
    return next(row[1:] for row in cells(text) if row[0] == name)
