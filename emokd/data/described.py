"""Examples of a data set as its source describes it, without its files: names, shapes and types are real, values not.

For what needs to know how the data look and not what they are, such as compiling a program.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import DTypeLike

from emokd.data.examples import Examples, Rows


def described(
    name: str,
    rows: int,
    classes: Mapping[str, Sequence[str]],
    inputs: Mapping[str, Callable[[int], np.ndarray]],
    *,
    valence_arousal: bool = False,
) -> Examples:
    """Examples of which every class has as many as any other, give or take one.

    Args:
      name: the data set's.
      rows: how many examples.
      classes: class names of each classifying column.
      inputs: readers by modality, such as `constant` and `table` give.
      valence_arousal: whether there are such targets.
    """
    keys = [f"described/{i}" for i in range(rows)]
    columns = {column: np.arange(rows, dtype=np.int32) % len(names) for column, names in classes.items()}
    if valence_arousal:
        columns["valence_arousal"] = np.zeros((rows, 2), np.float32)
    return Examples(
        name=name,
        keys=keys,
        columns=columns,
        classes={column: tuple(names) for column, names in classes.items()},
        inputs=inputs,
        content=keys.__getitem__,
    )


def constant(shape: Sequence[int], dtype: DTypeLike) -> Callable[[int], np.ndarray]:
    """A reader that gives zeros of this shape and type for every example."""
    return functools.partial(_zeros, tuple(shape), dtype)


def table(rows: int, shape: Sequence[int], names: Sequence[str] = ()) -> Rows:
    """An array in memory of this shape for each example, float64. Its values differ, so that no column is dead."""
    values = np.random.default_rng(0).normal(size=(rows, *shape))
    return Rows(values, names=tuple(names))


def _zeros(shape: tuple[int, ...], dtype: DTypeLike, i: int) -> np.ndarray:
    del i
    return np.zeros(shape, dtype)
