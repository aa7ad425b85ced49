"""Durations: lengths in steps, epochs, examples or percent, of which a configuration gives one."""

import math
from collections.abc import Collection, Mapping

import ml_collections

from emokd.errors import InputError

UNITS: Mapping[str, type] = {"steps": int, "epochs": float, "examples": int, "percent": float}
"""The units of a duration, each a suffix of its key, and the type of its number."""


def adopt_unit(config: ml_collections.ConfigDict, key: str, given: Collection[str] = ()) -> None:
    """Replaces the key of a duration by one in another unit, so that this one can be set.

    Args:
      config: an unlocked configuration, changed in place where `key` is such a duration.
      key: a dotted key, such as "phases.head.warmup_steps".
      given: the dotted keys that the user has set before this one.

    Raises:
      InputError: one of them is the same duration in another unit.
    """
    *path, name = key.split(".")
    stem, _, unit = name.rpartition("_")
    section = config
    for part in path:
        section = section.get(part) if isinstance(section, ml_collections.ConfigDict) else None
    if not isinstance(section, ml_collections.ConfigDict) or unit not in UNITS or name in section:
        return
    present = [f"{stem}_{other}" for other in UNITS if f"{stem}_{other}" in section]
    for other in present:
        if (twin := ".".join([*path, other])) in given:
            raise InputError(
                f"config.{twin} and config.{key} are the same duration in two units; give one of them, not both."
            )
    if present:
        with section.unlocked():
            for other in present:
                del section[other]
            section[name] = ml_collections.config_dict.placeholder(UNITS[unit])


def duration(
    config: ml_collections.ConfigDict,
    name: str,
    *,
    steps_per_epoch: int,
    batch_size: int,
    total_steps: int | None = None,
    section: str = "",
    below: int | None = None,
) -> int:
    """A duration in optimiser steps, from whichever of its units the configuration gives.

    Args:
      config: the section that has `<name>_steps`, `<name>_epochs`, `<name>_examples` or `<name>_percent`;
        those that are None count as absent.
      name: the duration's name, such as "warmup".
      steps_per_epoch: optimiser steps in an epoch.
      batch_size: examples in an optimiser step.
      total_steps: what `_percent` is a percentage of, or None where that has no meaning.
      section: the section's dotted key with a dot behind it, for messages: "config.phases.head.".
      below: a limit that rounding does not reach: a duration of fewer steps stays below it, such as a warm-up below
        the length of its phase.

    Returns:
      Steps: rounded for epochs and percentages, rounded up for examples, and at least 1 unless the
      configuration says 0 or `below` is 1.

    Raises:
      InputError: none or several of the keys are given, or the value is not a length.
    """
    given = {unit: config.get(f"{name}_{unit}") for unit in UNITS}
    given = {unit: value for unit, value in given.items() if value is not None}
    choices = " or ".join(f"{section}{name}_{unit}" for unit in UNITS if unit != "percent" or total_steps is not None)
    if len(given) != 1:
        problem = f"{' and '.join(f'{name}_{unit}' for unit in given)} are both given" if given else "none is given"
        raise InputError(f"The duration {section + name!r} needs exactly one of {choices}, but {problem}.")
    ((unit, value),) = given.items()
    key = f"{section}{name}_{unit}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{key} must be a number of {unit} from 0 up, not {value!r}.")
    if UNITS[unit] is int and value != int(value):
        raise InputError(f"{key} must be a whole number of {unit}, not {value!r}.")
    if unit == "percent" and total_steps is None:
        raise InputError(f"{key} has nothing to be a percentage of; give {choices}.")
    if unit == "percent" and value > 100:
        raise InputError(f"{key} must be at most 100, not {value!r}.")
    if value == 0:
        return 0
    exact = {
        "steps": value,
        "epochs": value * steps_per_epoch,
        "examples": value / batch_size,
        "percent": value * (total_steps or 0) / 100,
    }[unit]
    steps = max(math.ceil(exact) if unit == "examples" else round(exact), 1)
    return min(steps, below - 1) if below is not None and exact < below else steps
