"""Mean and deviation of columns over a data set, in one pass, for columns of any scale and offset.

Each batch is summarised on the device, every column in a unit of its own (a power of two), so that neither squares
underflow nor sums overflow in float32. The summaries are merged on the host in float64, by the update of Chan, Golub
and LeVeque (1983). Columns do not influence each other.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError, excerpt
from emokd.phase import Batch, Tree

DEAD = 2.0**-22
"""A column is dead if its standard deviation is at most this share of its largest absolute value.

A constant that is computed in float32, and rounds to one of a few neighbouring numbers, deviates by so much: the column
may hold nothing but rounding. [ours]
"""
OUTLYING = 50.0
"""A value is named in the log if it lies further from the others' mean than so many of their deviations. [ours]"""
FEW = 10
"""Among fewer values none is called an outlier: the others' deviation is too uncertain. [ours]"""
SILENT = 1e-2
"""Where one deviation serves all columns, a column is named in the log if its own is a smaller share of it. [ours]"""
IGNORED = float(np.finfo(np.float32).max)
"""The deviation that is stored for a dead column: divided by it, any later value becomes 0."""

_UNDER_WAY = 4  # summaries that are dispatched and not yet waited for

Weights = TypeVar("Weights")
"""A tree of arrays."""

Measured = Mapping[str, tuple[Float[Array, "*B C"], Bool[Array, "*B C"]]]
"""Values by name, and which of them count."""


def summarize(values: Float[Array, "*B C"], counts: Bool[Array, "*B C"]) -> dict[str, Array]:
    """What `Moments.of` needs of each column of a batch, computed in float32 in the unit 2^exponent.

    Args:
      values: the last axis are the columns.
      counts: which values count; NaN may stand where they do not.
    """
    values = values.astype(jnp.float32).reshape(-1, values.shape[-1])
    counts = counts.reshape(values.shape)
    largest = jnp.where(counts, jnp.abs(values), 0.0).max(0)
    exponent = jnp.clip(jnp.frexp(largest)[1], -120, 126)
    unit = jax.lax.bitcast_convert_type((127 - exponent) << 23, jnp.float32)  # 2^-exponent, exactly
    number = counts.sum(0, dtype=jnp.int32)
    scaled = jnp.where(counts, values * unit[None], 0.0)
    share = 1.0 / jnp.maximum(number, 1).astype(jnp.float32)
    mean = scaled.sum(0) * share
    deviations = jnp.where(counts, scaled - mean[None], 0.0)
    return {
        "number": number,
        "exponent": exponent,
        "mean": mean,
        "rest": deviations.sum(0) * share,  # the rounding error of `mean`
        "square": (deviations**2).sum(0),
        "low": deviations.min(0),
        "high": deviations.max(0),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and spread of columns; float64 [C] on the host.

    Attributes:
      number: values that count.
      mean: their mean, 0 where there is none.
      square: the sum of squared distances from the mean.
      low: the smallest value.
      high: the largest value.
    """

    number: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, summary: Mapping[str, Array]) -> "Moments":
        """The moments of one batch, from `summarize`."""
        exponent = np.asarray(summary["exponent"])
        number, mean, rest, square, low, high = (
            np.asarray(summary[name], np.float64) for name in ("number", "mean", "rest", "square", "low", "high")
        )
        return cls(
            number,
            np.ldexp(mean + rest, exponent),
            np.ldexp(np.maximum(square - number * rest**2, 0.0), 2 * exponent),
            *np.where(number > 0, np.ldexp([mean + low, mean + high], exponent), [[np.inf], [-np.inf]]),
        )

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of values."""
        number = self.number + other.number
        share = other.number / np.maximum(number, 1.0)
        difference = other.mean - self.mean
        return Moments(
            number,
            self.mean + difference * share,
            self.square + other.square + difference**2 * self.number * share,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def pooled(self) -> "Moments":
        """The moments of all columns' values together, [1]."""
        columns = [Moments(*(values[i : i + 1] for values in self._fields())) for i in range(len(self.number))]
        pooled, *others = columns
        for column in others:
            pooled = pooled.merge(column)
        return pooled

    @property
    def std(self) -> np.ndarray:
        """The standard deviation, of the population."""
        return np.sqrt(self.square / np.maximum(self.number, 1.0))

    def distance_without(self, values: np.ndarray) -> np.ndarray:
        """How far one of the values of each column lies from the mean of the others, in their standard deviations.

        The value itself is left out, because no value of n lies further than sqrt(n - 1) deviations from the mean of
        all, however wrong it is. The distance is infinite where the others are all equal, and 0 where all values are.
        """
        others = np.maximum(self.number - 1, 1.0)
        deviations = np.where(self.number > 0, np.abs(values - self.mean), 0.0)
        square = np.maximum(self.square - deviations**2 * self.number / others, 0.0)
        # The difference of two almost equal sums is rounding.
        std = np.sqrt(np.where(square > 1e-12 * self.square, square, 0.0) / others)
        far = deviations * self.number / others
        return np.divide(far, std, out=np.where(far > 0, np.inf, 0.0), where=std > 0)

    @property
    def dead(self) -> np.ndarray:
        """Which columns are dead, see `DEAD`."""
        return self.std <= DEAD * np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def finite(self) -> np.ndarray:
        """Which columns have finite moments."""
        return np.isfinite(self.mean) & np.isfinite(self.square)

    def statistics(self) -> dict[str, np.ndarray]:
        """{"mean", "std"} in float32, as `standardize` takes them."""
        return {"mean": self.mean.astype(np.float32), "std": np.where(self.dead, IGNORED, self.std).astype(np.float32)}

    def _fields(self) -> tuple[np.ndarray, ...]:
        return self.number, self.mean, self.square, self.low, self.high


def measure(
    select: Callable[[Weights, Batch], Measured], weights: Weights, batches: Iterable[Batch]
) -> tuple[dict[str, Moments], NamedSharding | None]:
    """The moments of named values over a data set, in one pass.

    Args:
      select: weights and a batch to values and which count, by name.
      weights: arguments of the compiled program, not constants in it.
      batches: the data set.

    Returns:
      Moments by name, none if there is no batch; and the sharding that replicates over the batches' devices, None where
      they are on no mesh.
    """
    compiled, everywhere = None, None
    moments_by_name: dict[str, Moments] = {}
    under_way: collections.deque = collections.deque()

    def take() -> None:
        for name, summary in jax.device_get(under_way.popleft()).items():
            moments = Moments.of(summary)
            moments_by_name[name] = moments_by_name[name].merge(moments) if name in moments_by_name else moments

    def summaries(batch: Batch, weights: Weights) -> dict[str, dict[str, Array]]:
        return {name: summarize(*values) for name, values in select(weights, batch).items()}

    for batch in batches:
        if compiled is None:
            sharding = getattr(batch["mask"], "sharding", None)
            everywhere = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
            compiled = jax.jit(summaries, out_shardings=everywhere)
        under_way.append(compiled(batch, weights))
        if len(under_way) > _UNDER_WAY:
            take()
    while under_way:
        take()
    return moments_by_name, everywhere


def fit(
    features: Callable[[Weights, Batch], Mapping[str, Float[Array, "B D"]]],
    weights: Weights,
    batches: Iterable[Batch],
    *,
    log: bool = True,
) -> dict[str, Tree]:
    """Mean and deviation of named features over a data set; padding rows do not count.

    Args:
      features: weights and a batch to features by name.
      weights: any tree.
      batches: the data set.
      log: whether to warn of dead and outlying features, see `remark`.

    Returns:
      For each name, {"mean": [D], "std": [D]}.

    Raises:
      InputError: there is no example, or features are not finite.
    """

    def select(weights: Weights, batch: Batch) -> Measured:
        fitted = features(weights, batch)
        return {name: (x, jnp.broadcast_to(batch["mask"][:, None], x.shape)) for name, x in fitted.items()}

    fitted, everywhere = measure(select, weights, batches)
    if not fitted:
        raise InputError("There is no training example to take feature statistics from.")
    for name, moments in fitted.items():
        what = f"The features of teacher {name!r}"
        check_finite(what, moments)
        if log:
            remark(what, moments)
    return jax.device_put({name: moments.statistics() for name, moments in fitted.items()}, everywhere)


def check_finite(what: str, moments: Moments) -> None:
    """Raises InputError where a column holds infinite values; `what` says whose columns they are."""
    wrong = np.flatnonzero(~moments.finite).tolist()
    if wrong:
        raise InputError(
            f"{what} are infinite, or no numbers, in {len(wrong)} of {len(moments.number)} columns (from 0: "
            f"{excerpt(wrong)}). Correct the data or the weights that they come from."
        )


def remark(what: str, moments: Moments, names: Sequence[str] = (), together: Moments | None = None) -> None:
    """Warns, with their number and names, of the columns that are dead, hold outliers, or nearly vanish beside others.

    Args:
      what: whose columns they are.
      moments: of each column.
      names: of the columns; their numbers from 0 where there are none.
      together: of all columns, where one mean and deviation serves them all.
    """
    if jax.process_index() > 0:
        return
    joint = moments if together is None else together
    dead = np.broadcast_to(joint.dead, moments.mean.shape)
    far = np.maximum(joint.distance_without(moments.high), joint.distance_without(moments.low))
    outlying = (far >= OUTLYING) & ~dead & (joint.number >= FEW)
    conditions = [
        ("have no value in training: they are dead, and become 0", moments.number == 0),
        ("hardly deviate beside their own magnitude: they are dead, and become 0", dead & (moments.number > 0)),
        (
            f"have a value further than {OUTLYING:g} deviations of the others from their mean",
            outlying,
        ),
        (
            f"deviate by less than {SILENT:g} of what all columns together do, by which they are divided "
            "(standardize='all')",
            ~dead & (moments.number > 0) & (moments.std < SILENT * joint.std),
        ),
    ]
    for words, which in conditions:
        places = np.flatnonzero(which).tolist()
        if places:
            columns = [f"{names[i]} ({i})" if names else str(i) for i in places]
            logging.warning("%s: %d of %d columns %s: %s.", what, len(places), len(which), words, excerpt(columns))


def standardize(statistics: Tree, features: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Features with each dimension at mean 0 and deviation 1 over the training set; a dead one is 0."""
    return (features - statistics["mean"][None]) / statistics["std"][None]


def restandardize(params: Tree, old: Tree, new: Tree) -> Tree:
    """A linear map on features standardised by `old`, rewritten for features standardised by `new`.

    Of a dimension that is dead in either, the map has learnt nothing that still holds: its row of the kernel becomes 0.
    """
    alive = (old["std"] < IGNORED) & (new["std"] < IGNORED)
    kernel = params["kernel"] * jnp.where(alive, new["std"] / old["std"], 0.0)[:, None]
    shift = ((new["mean"] - old["mean"]) / old["std"])[None] @ params["kernel"]
    return {"kernel": kernel, "bias": params["bias"] + shift[0]}
