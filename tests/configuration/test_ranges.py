"""Numbers that a configuration may not hold are refused before anything is read, by key and with the interval."""

import pytest
from ml_collections import ConfigDict

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.configuration import ranges
from emokd.errors import InputError
from emokd.jobs import job
from emokd.recipes import bounded

# These are checked where they are used, by rules of their own.
ELSEWHERE = ("data.split.", "data.augment.")

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", ["supervised", "smkd", "bounded", "mtpkdot"])
def test_every_number_of_a_recipe_has_an_interval_and_its_default_lies_in_it(name):
    config = recipes.find(name).default_config()
    ranges.check_numbers(config)
    for key, value in configuration.leaves(config):
        if isinstance(value, int | float) and not isinstance(value, bool) and not key.startswith(ELSEWHERE):
            with pytest.raises(InputError, match=f"config.{key} "):
                ranges.check_numbers(configuration.locked(config, {key: type(value)(-1)}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("batch_size", 0, "of at least 1"),
        ("batch_size", -8, "of at least 1"),
        ("accumulate", 0, "of at least 1"),
        ("phases.distill.learning_rate", -1.0, "of at least 0"),
        ("phases.distill.learning_rate", NAN, "finite"),
        ("phases.distill.learning_rate", INF, "finite"),
        ("phases.head.duration_epochs", -1.0, "of at least 0"),
        ("phases.distill.duration_steps", -1, "of at least 0"),
        ("phases.distill.duration_epochs", NAN, "finite"),
        ("phases.distill.duration_epochs", INF, "finite"),
        ("phases.distill.warmup_percent", 101.0, "of at least 0 and of at most 100"),
        ("evaluation.every_steps", 0, "above 0"),
        ("log.every_steps", 0, "of at least 1"),
        ("optimizer.weight_decay", -1e-4, "of at least 0"),
        ("optimizer.clip_norm", -1.0, "of at least 0"),
        ("optimizer.skip_diverged", 1001, "of at least 0 and of at most 1000"),
        ("optimizer.b2", 1.0, "of at least 0 and below 1"),
        ("data.augment.crop_area", (0.3, NAN), "finite"),
        ("devices", -1, "of at least 0"),
    ],
)
def test_a_number_outside_its_interval_stops_the_job_before_it_reads_data(key, value, words):
    config = configuration.locked(bounded.default_config(), {"data.source": "a source that is not there", key: value})
    with pytest.raises(InputError, match=rf"config\.{key} is .*; give a finite number.*") as refused:
        job.create_job(config, train_teacher=None)
    assert words in str(refused.value)


@pytest.mark.parametrize(("interval", "inside", "outside"), [
    ("[0, 1]", (0, 1, 0.5), (-1e-9, 1.1, NAN, -INF)),
    ("(0, 1)", (1e-9, 0.999), (0, 1)),
    ("[1, inf)", (1, 1e300), (0, INF)),
])  # fmt: skip
def test_an_interval_has_its_ends_or_not(interval, inside, outside):
    for value in (*inside, *outside):
        config = ConfigDict({"sizes": (value,)})
        if value in inside:
            ranges.check_numbers(config, {"sizes": interval})
        else:
            with pytest.raises(InputError, match="config.sizes"):
                ranges.check_numbers(config, {"sizes": interval})
