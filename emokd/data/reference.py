"""Arrays in memory as float32 of order one: seen from the training examples' centre, in units of about a deviation.

float32 has 24 bits: of a clock that counts in milliseconds since 1970 it keeps two minutes. So what is held in float64
is centred before it becomes float32. The unit is a power of two and the centre a multiple of it, so that both steps are
exact in float64, and the same whatever the order of summation. Networks take the mean and deviation of what is left.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from emokd.data.examples import Examples, Rows
from emokd.errors import InputError, excerpt

DEAD = 2.0**-22
"""As `emokd.recipes.common.standardize.DEAD`: so much a constant deviates that was computed in float32."""
DEAD_EXACT = 2.0**-24
"""The same for arrays in float64, such as a clock: so much a constant deviates that is rounded to float32 once."""

_BLOCK = 2**22  # entries that are worked on at once
_DEEPEST = -1000  # exponent of the smallest unit, whose inverse is still a number


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What float32 values are counted from, and in what.

    Attributes:
      centre: float64, of each entry of the last axis [C], or of all [].
      unit: a power of two, likewise; 0 for what is dead in training: all its values become 0.
    """

    centre: np.ndarray
    unit: np.ndarray

    def __call__(self, values: Shaped[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
        """(values - centre) / unit in float32. NaN stays NaN; what float32 cannot hold is infinite."""
        with np.errstate(over="ignore"):
            inverse = np.divide(1.0, self.unit, out=np.zeros_like(self.unit), where=self.unit > 0)
            return ((values.astype(np.float64) - self.centre) * inverse).astype(np.float32)


def fit(examples: Examples, together: Mapping[str, bool]) -> dict[str, Reference]:
    """The references of a training split's arrays in memory.

    Args:
      examples: the training split alone: no other may have a part in them.
      together: the inputs that are asked for, and whether all entries of an array have one reference.
    """
    return {
        name: _fit(read.raw(), together[name])
        for name, read in examples.inputs.items()
        if name in together and isinstance(read, Rows)
    }


def refer(examples: Examples, references: Mapping[str, Reference]) -> Examples:
    """The examples with these inputs read by their references.

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
    """The references by which the examples' inputs are read, as JSON values; float64 survives them exactly."""
    readers = {name: read for name, read in examples.inputs.items() if isinstance(read, Rows)}
    return {
        name: {key: value.tolist() for key, value in vars(read.reference).items()}
        for name, read in readers.items()
        if isinstance(read.reference, Reference)
    }


def from_json(values: Mapping[str, Any]) -> dict[str, Reference]:
    """Inverse of `to_json`.

    Raises:
      InputError: they are damaged.
    """
    try:
        found = {
            name: Reference(np.array(each["centre"], np.float64), np.array(each["unit"], np.float64))
            for name, each in values.items()
        }
        for name, each in found.items():
            finite = np.isfinite(each.centre).all() and np.isfinite(each.unit).all() and (each.unit >= 0).all()
            if each.centre.shape != each.unit.shape or each.centre.ndim > 1 or not finite:
                raise ValueError(f"those of {name!r} are no centres and units")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"The references of the model's arrays cannot be read ({error}). Restore model.json, or train it again."
        ) from error
    return found


def _fit(array: np.ndarray, together: bool) -> Reference:
    columns = array.reshape(-1, 1 if together else array.shape[-1])
    block = max(_BLOCK // len(columns), 1)
    least = DEAD_EXACT if array.dtype == np.float64 else DEAD
    found = [
        _fit_columns(columns[:, i : i + block].astype(np.float64), least) for i in range(0, columns.shape[1], block)
    ]
    centre, unit = (np.concatenate(values) for values in zip(*found, strict=True))
    return Reference(centre[0], unit[0]) if together else Reference(centre, unit)


def _fit_columns(
    columns: Float[np.ndarray, "N C"], least: float
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Centre and unit of each column; one that deviates by no more than this share of its largest value is dead."""
    known = ~np.isnan(columns)
    number = np.maximum(known.sum(0), 1)
    # Fractions of the largest value: no square underflows or overflows.
    largest = np.abs(np.where(known, columns, 0.0)).max(0)
    exponent = np.frexp(largest)[1]
    scaled = np.where(known, np.ldexp(columns, -exponent), 0.0)
    mean = scaled.sum(0) / number
    apart = np.where(known, scaled - mean, 0.0)
    rest = apart.sum(0) / number
    std = np.sqrt(np.maximum((apart**2).sum(0) / number - rest**2, 0.0))
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
