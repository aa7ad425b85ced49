"""A run that may use some labels only: which examples each phase reads, and what it is scored on."""

import itertools

import numpy as np
import pytest
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data.examples import Examples
from emokd.jobs import began, caching, datasets, held_out, job
from emokd.recipes import smkd
from emokd.training.streams import Streams


@pytest.fixture(scope="module")
def config():
    config = paint(smkd.default_config(), steps=2)
    config.data.split.by_group = False
    config.data.labels.limit = 10
    config.data.views = 2
    config.devices = 1
    config.teachers.scene = defaults.teacher("basic_cnn", task="scene", width=1)
    for name in config.phases:
        config.phases[name] = defaults.phase(epochs=2, learning_rate=1e-2, warmup_percent=0.0)
    return config.lock()


def test_the_other_examples_are_read_without_their_labels_where_none_is_needed(config):
    made = job.create_job(config, None)
    assert {name: len(part) for name, part in made.splits.items()} == {
        "train": 10,
        "unlabelled": 14,
        "validation": 9,
        "test": 11,
    }
    steps = {phase.name: phase.steps for phase in made.recipe.phases}
    assert steps == {"teach": 2, "probe": 2, "distill": 6, "classify": 2, "finetune": 2}  # 24 and 10 of batches of 8
    streams = Streams(config, made.programs.mesh, splits=made.splits)
    for phase in made.recipe.phases[1:3]:
        batches = itertools.islice(streams.training(made.splits["train"], made.without_labels(phase), 0), 3)
        rows = {int(i): int(label) for b in batches for i, label in zip(b["id"], b["expression"], strict=True)}
        labelled = {i for i, label in rows.items() if label >= 0}
        assert labelled == set(made.splits["train"].ids.tolist())
        expected = set(made.splits["unlabelled"].ids.tolist()) if phase.name == "distill" else set()
        assert rows.keys() - labelled == expected


def test_scores_are_of_the_same_examples_and_a_cache_holds_every_limit(config):
    everything = configuration.locked(config, {"data.labels.limit": 0.0})
    limited, whole = datasets.load_data(config)[0], datasets.load_data(everything)[0]
    for name in ("validation", "test"):
        assert limited[name].keys == whole[name].keys
    assert sorted([*limited["train"].keys, *limited["unlabelled"].keys]) == sorted(whole["train"].keys)
    keys = [caching.cache_key(config, {}, parts, None) for parts in (limited, whole)]
    assert keys[0] == keys[1]


def test_the_record_says_whose_labels_are_used_and_ignores_the_others(config):
    parts, _ = datasets.load_data(config)
    was = began.describe(config, parts, None)
    relabelled = {name: relabel(part) if name == "unlabelled" else part for name, part in parts.items()}
    assert began.differences(was, began.describe(config, relabelled, None)) == []
    other = datasets.load_data(configuration.locked(config, {"data.labels.seed": 1}))[0]
    [change] = began.differences(was, began.describe(config, other, None))
    assert "examples are in another split" in change and "from unlabelled to train" in change


def relabel(examples: Examples) -> Examples:
    found = examples.select(np.arange(len(examples)))
    found.columns["expression"][:] = 0
    return found


def test_a_teacher_of_the_same_set_has_the_same_limit(config):
    teacher = smkd.default_config()
    teacher.data.source = "painter"
    teacher.data.options = config.data.options
    held_out.for_teacher(teacher, config.data)
    assert teacher.data.labels.limit == 10
