"""The task: what the data offers to a recipe, the targets of a batch, and accuracy."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import TypeVar, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emokd import imports
from emokd.errors import InputError, nearest
from emokd.labels import has_any_value, has_class
from emokd.phase import Batch, Measure

Choice = TypeVar("Choice")


@dataclasses.dataclass(frozen=True)
class Task:
    """What the data offers to a recipe.

    Attributes:
      classes: class names of each classifying column, in order of their ids.
      columns: names of all target columns.
      sizes: number of training examples in each stream ("labelled", "all").
      batch_size: the global batch.
      counts: training examples of each class of each classifying column, fractional where votes are counted.
      inputs: shape of one example of each input that is no picture.
      devices: over how many devices the batch is split.
      names: of the columns of inputs that are tables, where they are known.
    """

    classes: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    sizes: Mapping[str, int]
    batch_size: int
    counts: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    devices: int = 1
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def steps_per_epoch(self, stream: str) -> int:
        """Whole batches in a stream, at least one."""
        return max(self.sizes[stream] // self.batch_size, 1)


def require_classes(task: Task, column: str) -> tuple[str, ...]:
    """The class names of a column.

    Raises:
      InputError: the data has no such column, or fewer than two classes.
    """
    if column not in task.classes:
        raise InputError(f"This recipe needs {column!r} labels, but the data has {sorted(task.columns)}.")
    if len(task.classes[column]) < 2:
        raise InputError(f"There is only one class of {column!r}: {task.classes[column]}. At least two are needed.")
    return task.classes[column]


def joint_heads(task: Task) -> dict[str, int]:
    """Head sizes of expressions, valence and arousal: whichever of them the data has.

    Raises:
      InputError: it has none of them.
    """
    heads = {}
    if "expression" in task.classes:
        heads["expression"] = len(require_classes(task, "expression"))
    if "valence_arousal" in task.columns:
        heads["valence_arousal"] = 2
    if not heads:
        raise InputError(f"This recipe needs expressions, or valence and arousal; the data has {list(task.columns)}.")
    return heads


def choose(options: Mapping[str, Choice], name: str, key: str) -> Choice:
    """The option called `name`; the error names `key` and the nearest option.

    Where all options are functions, as losses are, a user's own may be named as well: "package.module:function".
    """
    if name in options:
        return options[name]
    functions = all(map(inspect.isfunction, options.values()))
    if functions and imports.is_path(name):
        return cast(Choice, imports.load(name, key))
    import_path = ", or package.module:function of your own" if functions else ""
    raise InputError(f"{key} is {name!r}.{nearest(name, options)} Known: {', '.join(sorted(options))}{import_path}.")


def targets(batch: Batch, column: str = "expression") -> tuple[Array, Bool[Array, " B"]]:
    """The targets of a column, and which rows have one; padding has none.

    Classes are ids [B], or vote distributions [B, C]. Valence and arousal are [B, 2], NaN where missing; a row has a
    target where it has either of them.
    """
    if column == "valence_arousal":
        return batch[column], batch["mask"] & has_any_value(batch[column])
    labels = batch["votes" if column == "expression" and "votes" in batch else column]
    return labels, batch["mask"] & has_class(labels)


def accuracy(logits: Float[Array, "B C"], labels: Array, rows: Bool[Array, " B"]) -> Measure:
    """1 where the likeliest class is the label (the majority, for votes), else 0; of the rows that have one."""
    ids = labels.argmax(-1) if labels.ndim == 2 else labels
    return Measure((logits.argmax(-1) == ids.astype(jnp.int32)).astype(jnp.float32), rows)
