"""The numbers that a configuration may hold: all are finite, and those of the keys in `RANGES` lie in an interval."""

import fnmatch
import math
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from emokd.configuration.config import leaves
from emokd.configuration.limits import LARGEST_CANVAS
from emokd.errors import InputError

RANGES: Mapping[str, str] = {
    "seed": "[0, 4294967295]",
    "batch_size": "[1, inf)",
    "accumulate": "[1, inf)",
    "devices": "[0, inf)",
    "mesh.*": "[0, inf)",
    "sharding.min_size": "[0, inf)",
    "data.canvas": f"[1, {LARGEST_CANVAS}]",
    "data.labels.limit": "[0, inf)",
    "data.labels.seed": "[0, 4294967295]",
    "data.views": "[0, inf)",
    "data.view_seed": "[0, 4294967295]",
    "data.num_threads": "[0, inf)",
    "data.max_bad_fraction": "[0, 1]",
    "student.size": "[0, inf)",
    "student.dropout": "[0, 1)",
    "teachers.*.size": "[0, inf)",
    "modalities.*.size": "[0, inf)",
    "width": "[1, inf)",
    "adapter_width": "[1, inf)",
    "dropout": "[0, 1)",
    "modality_dropout": "[0, 1]",
    "optimizer.b1": "[0, 1)",
    "optimizer.b2": "[0, 1)",
    "optimizer.momentum": "[0, 1]",
    "optimizer.weight_decay": "[0, inf)",
    "optimizer.clip_norm": "[0, inf)",
    "optimizer.skip_diverged": "[0, 1000]",
    "ema.decay": "[0, 1)",
    "backbone_multiplier": "[0, inf)",
    "encoder_multiplier": "[0, inf)",
    "hallucination.multiplier": "[0, inf)",
    "align.*": "[0, inf)",
    "objective.*": "[0, inf)",
    "structure.k": "[1, inf)",
    "structure.rows": "[0, inf)",
    "structure.blur": "(0, inf)",
    "soft_targets.alpha": "[0, 1]",
    "soft_targets.temperature": "(0, inf)",
    "bound.nu": "[0, inf)",
    "bound.margin": "[0, inf)",
    "label_smoothing": "[0, 1]",
    "phases.*.learning_rate": "[0, inf)",
    "phases.*.duration_*": "[0, inf)",
    "phases.*.warmup_percent": "[0, 100]",
    "phases.*.warmup_*": "[0, inf)",
    "baseline.learning_rate": "[0, inf)",
    "evaluation.every_percent": "(0, 100]",
    "evaluation.every_*": "(0, inf)",
    "early_stopping.*": "[0, inf)",
    "checkpoint.keep": "[1, inf)",
    "checkpoint.min_seconds": "[0, inf)",
    "log.every_steps": "[1, inf)",
}
"""Intervals by dotted key, in which a star stands for any text; the first that fits counts."""


def check_numbers(config: ml_collections.ConfigDict, ranges: Mapping[str, str] = RANGES) -> None:
    """Checks every number of a configuration, those in tuples too.

    Args:
      config: the resolved configuration.
      ranges: intervals by dotted key, as `RANGES`.

    Raises:
      InputError: a number is not finite or outside its interval; the first key is named, with the interval.
    """
    for key, value in leaves(config):
        interval = next(
            (given for pattern, given in ranges.items() if fnmatch.fnmatchcase(key, pattern)), "(-inf, inf)"
        )
        for number in _numbers(value):
            if not _inside(number, interval):
                raise InputError(f"config.{key} is {value!r}; give {_in_words(interval)}.")


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _ends(interval: str) -> tuple[str, float, float, str]:
    match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    if match is None:
        raise ValueError(f"{interval!r} is no interval, such as '[0, inf)'.")
    left, low, high, right = match.groups()
    return left, float(low), float(high), right


def _inside(number: float, interval: str) -> bool:
    left, low, high, right = _ends(interval)
    above = number >= low if left == "[" else number > low
    below = number <= high if right == "]" else number < high
    return math.isfinite(number) and above and below


def _in_words(interval: str) -> str:
    left, low, high, right = _ends(interval)
    limits = []
    if math.isfinite(low):
        limits.append(f"{'of at least' if left == '[' else 'above'} {low:.10g}")
    if math.isfinite(high):
        limits.append(f"{'of at most' if right == ']' else 'below'} {high:.10g}")
    return f"a finite number {' and '.join(limits)}".rstrip()
