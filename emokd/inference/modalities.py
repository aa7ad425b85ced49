"""Checks a user's modalities and turns them into the arrays that a multimodal model takes."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from emokd.data.arrays import as_features
from emokd.data.reference import Reference
from emokd.errors import InputError, excerpt, nearest
from emokd.inference.pictures import is_several
from emokd.inference.signature import Input


@dataclasses.dataclass(frozen=True)
class Given:
    """The checked modalities of one call.

    Attributes:
      arrays: by the modality's name: floating [B, ...], NaN throughout where absent; of videos uint8 frames.
      pictures: by the modality's name, lists of B pictures.
      rows: the number of examples, B.
      single: whether a single example was given, without an axis of examples.
    """

    arrays: Mapping[str, Shaped[np.ndarray, "B ..."]]
    pictures: Mapping[str, list]
    rows: int
    single: bool


class Modalities:
    """The modalities that a model takes, and the privileged ones, which it accepts and ignores."""

    def __init__(
        self, inputs: Mapping[str, Input], references: Mapping[str, Reference], privileged: Collection[str] = ()
    ):
        """Stores what the model takes.

        Args:
          inputs: the model's modalities by name.
          references: the centre and unit of an input's values in training, where it had them (`data.reference`).
          privileged: names of modalities that existed only in training, and of their inputs.
        """
        self.inputs, self._references = inputs, references
        self._privileged = frozenset(privileged)
        self._told: set[str] = set()

    def describe(self) -> str:
        """The names and shapes of the modalities of one example, in words."""
        return ", ".join(f"{name} {self._shape(seen)}" for name, seen in self.inputs.items())

    def resolve(self, names: Collection[str]) -> dict[str, str]:
        """Maps each name to the modality that it means. Privileged ones are left out, with one warning each.

        Args:
          names: of modalities ("eye") or of their inputs ("features/eye").

        Raises:
          InputError: a name is neither that of a modality of the model nor of a privileged one, or two names mean the
            same modality.
        """
        known = {**{seen.reads: name for name, seen in self.inputs.items()}, **{name: name for name in self.inputs}}
        found: dict[str, str] = {}
        for name in names:
            if name in known and known[name] in found.values():
                raise InputError(f"The modality {known[name]} is given twice. Give it under one name.")
            if name in known:
                found[name] = known[name]
            elif name not in self._privileged:
                raise InputError(
                    f"The model has no modality {name!r}.{nearest(name, known)} It takes {self.describe()}."
                )
        ignored = set(names) - set(found) - self._told
        if ignored:
            logging.warning("Not looked at: %s, which the model saw in training only.", excerpt(sorted(ignored)))
            self._told |= ignored
        return found

    def take(self, given: Mapping[str, Any]) -> Given:
        """Checks the values, and fills absent arrays with NaN.

        Args:
          given: values by name: of one example in the modality's shape, or with an axis of examples before it. A
            modality is absent where its values are all NaN, or None, or where its name is missing.

        Raises:
          InputError: a name is unknown, a shape or a type is wrong, the numbers of examples differ, a picture or video
            is absent, an example has no modality at all, or values lie too far from the training's for float32.
        """
        values = {name: given[key] for key, name in self.resolve(given).items() if given[key] is not None}
        if not values:
            raise InputError(f"No modality is given that the model sees. It takes {self.describe()}.")
        pictures = {name: v for name, v in values.items() if self.inputs[name].kind == "picture"}
        lists = {name: v if is_several(v) else [v] for name, v in pictures.items()}
        arrays = {name: self._read(name, v) for name, v in values.items() if name not in pictures}
        single = {name: not is_several(v) for name, v in pictures.items()}
        single |= {name: array.ndim == len(self.inputs[name].shape) for name, array in arrays.items()}
        arrays = {name: array[None] if single[name] else array for name, array in arrays.items()}
        counts = {name: len(v) for name, v in {**lists, **arrays}.items()}
        if len(set(counts.values())) > 1 or len(set(single.values())) > 1:
            told = ", ".join(f"{name} {'one' if single[name] else counts[name]}" for name in counts)
            raise InputError(f"The modalities have different numbers of examples: {told}. Give the same rows of each.")
        rows = next(iter(counts.values()))
        if not rows:
            raise InputError("There is no example to answer. Give at least one row.")
        return Given(self._complete(arrays, lists, rows), lists, rows, next(iter(single.values())))

    def _complete(
        self, arrays: Mapping[str, np.ndarray], pictures: Collection[str], rows: int
    ) -> dict[str, np.ndarray]:
        """All arrays and videos in the model's order; arrays are centred as in training, absent ones are NaN."""
        found = {}
        for name, wanted in self.inputs.items():
            if name in arrays:
                found[name] = self._count(name, arrays[name])
            elif wanted.kind == "array":
                found[name] = np.full((rows, *wanted.shape), np.nan, np.float32)
            elif name not in pictures:
                raise InputError(
                    f"{name} is missing, and is no array, which could be absent. The model takes {self.describe()}."
                )
        if all(wanted.kind == "array" for wanted in self.inputs.values()):
            empty = np.all([np.isnan(v).reshape(rows, -1).all(1) for v in found.values()], axis=0)
            if empty.any():
                raise InputError(
                    f"{empty.sum()} examples have no value in any modality that the model sees (rows from 0: "
                    f"{excerpt(np.flatnonzero(empty).tolist())}). Leave them out. It takes {self.describe()}."
                )
        return found

    def _read(self, name: str, value: Any) -> np.ndarray:
        wanted = self.inputs[name]
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"{name} is no array: {error}. Give {self._shape(wanted)}.") from error
        shape = wanted.shape
        if wanted.kind == "array":
            wrong = array.shape not in (shape, (*array.shape[:1], *shape))
        else:  # a video: frames are squares of any side, which the forward pass resizes
            frames = array.shape[-4:]
            wrong = array.ndim not in (4, 5) or frames[0] != shape[0] or frames[1] != frames[2] or frames[3] != 3
        if wrong:
            raise InputError(
                f"{name} has the shape {list(array.shape)}. Give {self._shape(wanted)} for one example, or with an "
                "axis of examples before it."
            )
        if wanted.kind == "video":
            if array.dtype != np.uint8:
                raise InputError(f"{name} is of type {array.dtype}. Give frames of uint8, red, green and blue.")
            return array
        if not array.size:
            raise InputError(f"{name} has the shape {list(array.shape)}: there is no example to answer. Give one row.")
        return as_features(array.reshape(-1, *shape), name).reshape(array.shape)

    def _count(self, name: str, array: np.ndarray) -> np.ndarray:
        """Arrays as float32, relative to the training's centre and unit; videos unchanged."""
        wanted = self.inputs[name]
        if wanted.kind == "video":
            return array
        reference = self._references.get(wanted.reads)
        values = array.astype(np.float32) if reference is None else reference(array)
        beyond = np.flatnonzero(np.isinf(values).reshape(len(values), -1).any(1)).tolist()
        if beyond:
            raise InputError(
                f"The values of {name} in {len(beyond)} examples lie too far from the training's for float32 (rows "
                f"from 0: {excerpt(beyond)}). Correct them, or make them NaN."
            )
        return values

    def _shape(self, wanted: Input) -> str:
        if wanted.kind == "picture":
            return "a picture"
        if wanted.kind == "video":
            return f"[{wanted.shape[0]} frames, side, side, 3] of uint8"
        return str(list(wanted.shape))
