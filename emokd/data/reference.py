"""Converts arrays in memory to float32 of order one, by centre and deviation of the training examples.

float32 has a significand of 24 bits: it rounds a clock in milliseconds since 1970 to about two minutes. Arrays are
therefore centred in float64 before they become float32. The unit is a power of two near the standard deviation and the
centre a multiple of it, so that both steps are exact in float64 and do not depend on the order of summation. Networks
standardize the result by its own mean and standard deviation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from emokd.data.examples import Examples, Rows
from emokd.errors import InputError, excerpt

DEAD = 2.0**-22
"""A column that deviates by no more than this share of its largest value counts as constant: rounding in float32 does
as much. The same as `emokd.recipes.common.standardize.DEAD`."""
DEAD_EXACT = 2.0**-24
"""The same for arrays in float64, such as a clock: as much as one rounding to float32 moves a constant."""

_BLOCK = 2**22  # entries that are processed at once
_DEEPEST = -1000  # exponent of the smallest unit, whose inverse is still a number


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The centre and the unit of an array's float32 values.

    Attributes:
      centre: float64, for each entry of the last axis [C], or one for all [].
      unit: a power of two, of the same shape; 0 for a column that is constant in training, whose values all become 0.
    """

    centre: np.ndarray
    unit: np.ndarray

    def __call__(self, values: Shaped[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
        """(values - centre) / unit in float32. NaN stays NaN; values beyond float32's range become infinite."""
        with np.errstate(over="ignore"):
            inverse = np.divide(1.0, self.unit, out=np.zeros_like(self.unit), where=self.unit > 0)
            return ((values.astype(np.float64) - self.centre) * inverse).astype(np.float32)


def fit(examples: Examples, together: Mapping[str, bool]) -> dict[str, Reference]:
    """Fits the references of a training split's arrays in memory.

    Args:
      examples: the training split alone, so that no other split leaks into the references.
      together: the inputs to fit, and whether all entries of an array share one reference.
    """
    return {
        name: _fit(read.raw(), together[name])
        for name, read in examples.inputs.items()
        if name in together and isinstance(read, Rows)
    }


def refer(examples: Examples, references: Mapping[str, Reference]) -> Examples:
    """The examples, with these inputs read relative to their references.

    Raises:
      InputError: a value lies so far from the training examples that float32 cannot hold the distance.
    """
    inputs = dict(examples.inputs)
    for name, reference in references.items():
        read = inputs.get(name)
        if isinstance(read, Rows):
            inputs[name] = dataclasses.replace(read, reference=reference)
            _check(examples, name, reference(read.raw()))
    return dataclasses.replace(examples, inputs=inputs)


def to_json(examples: Examples) -> dict[str, Any]:
    """The references of the examples' inputs as JSON values, which hold float64 exactly."""
    readers = {name: read for name, read in examples.inputs.items() if isinstance(read, Rows)}
    return {
        name: {key: value.tolist() for key, value in vars(read.reference).items()}
        for name, read in readers.items()
        if isinstance(read.reference, Reference)
    }


def column_names(examples: Examples) -> dict[str, list[str]]:
    """The names of the columns of the examples' arrays, by input, where they have any."""
    return {name: list(r.names) for name, r in examples.inputs.items() if isinstance(r, Rows) and r.names}


def from_json(values: Mapping[str, Any]) -> dict[str, Reference]:
    """Inverse of `to_json`.

    Raises:
      InputError: the values are damaged.
    """
    try:
        references = {
            name: Reference(np.array(each["centre"], np.float64), np.array(each["unit"], np.float64))
            for name, each in values.items()
        }
        for name, each in references.items():
            finite = np.isfinite(each.centre).all() and np.isfinite(each.unit).all() and (each.unit >= 0).all()
            if each.centre.shape != each.unit.shape or each.centre.ndim > 1 or not finite:
                raise ValueError(f"those of {name!r} are no centres and units")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"The references of the model's arrays cannot be read ({error}). Restore model.json, or train it again."
        ) from error
    return references


def _fit(array: np.ndarray, together: bool) -> Reference:
    columns = array.reshape(-1, 1 if together else array.shape[-1])
    block = max(_BLOCK // len(columns), 1)
    least = DEAD_EXACT if array.dtype == np.float64 else DEAD
    fitted = [
        _fit_columns(columns[:, i : i + block].astype(np.float64), least) for i in range(0, columns.shape[1], block)
    ]
    centre, unit = (np.concatenate(values) for values in zip(*fitted, strict=True))
    return Reference(centre[0], unit[0]) if together else Reference(centre, unit)


def _fit_columns(
    columns: Float[np.ndarray, "N C"], least: float
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Centre and unit of each column; the unit is 0 where the deviation is at most `least` of the largest value."""
    present = ~np.isnan(columns)
    number = np.maximum(present.sum(0), 1)
    # Fractions of the largest value: no square underflows or overflows.
    largest = np.abs(np.where(present, columns, 0.0)).max(0)
    exponent = np.frexp(largest)[1]
    scaled = np.where(present, np.ldexp(columns, -exponent), 0.0)
    mean = scaled.sum(0) / number
    deviations = np.where(present, scaled - mean, 0.0)
    rest = deviations.sum(0) / number
    std = np.sqrt(np.maximum((deviations**2).sum(0) / number - rest**2, 0.0))
    dead = std <= least * np.ldexp(largest, -exponent)
    power = np.maximum(np.frexp(std)[1] - 1, _DEEPEST - exponent)
    unit = np.ldexp(1.0, power)
    centre = np.where(dead, mean + rest, np.rint((mean + rest) / unit) * unit)
    return np.ldexp(centre, exponent), np.where(dead, 0.0, np.ldexp(unit, exponent))


def _check(examples: Examples, name: str, values: Float[np.ndarray, "N ..."]) -> None:
    beyond = np.flatnonzero(np.isinf(values).reshape(len(values), -1).any(1)).tolist()
    if beyond:
        raise InputError(
            f"{examples.name}: the values of {name} in {len(beyond)} examples lie too far from the training examples' "
            f"for float32: {excerpt([examples.keys[i] for i in beyond])}. Correct them, or make them NaN."
        )
