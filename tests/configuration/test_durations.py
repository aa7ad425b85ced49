import pytest
from ml_collections import ConfigDict

from emokd.configuration.config import locked
from emokd.configuration.durations import duration
from emokd.errors import InputError


def example() -> ConfigDict:
    return ConfigDict({"batch_size": 64, "optimizer": {"learning_rate": 0.1, "warmup_epochs": 2.0}})


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"warmup_steps": 7}, 7),
        ({"warmup_steps": 0}, 0),
        ({"warmup_steps": 7.0}, 7),
        ({"warmup_steps": 7, "warmup_epochs": None}, 7),
        ({"warmup_epochs": 2}, 200),
        ({"warmup_epochs": 0.5}, 50),
        ({"warmup_epochs": 0.001}, 1),  # not nothing
        ({"warmup_examples": 64}, 2),
        ({"warmup_examples": 65}, 3),
        ({"warmup_percent": 5.0}, 50),
        ({"warmup_percent": 100}, 1000),
        ({"warmup_percent": 0.0}, 0),
        ({"warmup_steps": 7, "duration_epochs": 3}, 7),
    ],
)
def test_durations(values, steps):
    config = ConfigDict(values).lock()
    assert duration(config, "warmup", steps_per_epoch=100, batch_size=32, total_steps=1000) == steps


@pytest.mark.parametrize(
    ("values", "total", "message"),
    [
        ({}, 1000, "exactly one of warmup_steps or warmup_epochs or warmup_examples or warmup_percent, but none"),
        ({"warmup_steps": None}, 1000, "none is given"),
        ({"warmup_steps": 1, "warmup_percent": 2.0}, 1000, "warmup_steps and warmup_percent are"),
        ({"warmup_steps": -1}, 1000, "warmup_steps must be a number of steps from 0 up, not -1"),
        ({"warmup_epochs": float("nan")}, 1000, "not nan"),
        ({"warmup_epochs": "2"}, 1000, "not '2'"),
        ({"warmup_steps": True}, 1000, "not True"),
        ({"warmup_steps": 1.5}, 1000, "whole number of steps, not 1.5"),
        ({"warmup_examples": 10.5}, 1000, "whole number of examples"),
        ({"warmup_percent": 101.0}, 1000, "at most 100"),
        ({"warmup_percent": 5.0}, None, "nothing to be a percentage of; give warmup_steps or"),
    ],
)
def test_durations_that_are_none(values, total, message):
    with pytest.raises(InputError, match=message):
        duration(ConfigDict(values), "warmup", steps_per_epoch=100, batch_size=32, total_steps=total)


def test_a_duration_may_come_in_another_unit():
    config = locked(example(), {"optimizer.warmup_steps": 10})
    assert "warmup_epochs" not in config.optimizer
    assert duration(config.optimizer, "warmup", steps_per_epoch=3, batch_size=2) == 10
    with pytest.raises(InputError, match="no key 'cooldown_steps'"):
        locked(example(), {"optimizer.cooldown_steps": 10})


@pytest.mark.parametrize(("first", "second"), [("epochs", "steps"), ("steps", "epochs"), ("examples", "percent")])
def test_a_duration_in_two_units_names_both_keys(first, second):
    """Of the three pairs the file's own unit, epochs, is the first, the second, and none."""
    changes = {f"optimizer.warmup_{first}": 1, "batch_size": 2, f"optimizer.warmup_{second}": 3}
    keys = f"config.optimizer.warmup_{first} and config.optimizer.warmup_{second}"
    with pytest.raises(InputError, match=f"^{keys} are the same duration in two units; give one of them, not both.$"):
        locked(example(), changes)


def test_units_of_different_durations_do_not_meet():
    phases = {"teach": {"warmup_epochs": 1.0, "duration_epochs": 9.0}, "learn": {"duration_epochs": 9.0}}
    changes = {"teach.warmup_percent": 5.0, "teach.duration_steps": 7, "learn.duration_examples": 64}
    assert locked(phases, changes).to_dict() == {
        "teach": {"warmup_percent": 5.0, "duration_steps": 7},
        "learn": {"duration_examples": 64},
    }
